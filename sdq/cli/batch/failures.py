"""Lines that failed: some of them for people, all of them for ``--failed``."""

from contextlib import suppress
from pathlib import Path
from typing import TextIO

from sdq.cli.batch.formats import Reader
from sdq.cli.output import Sink, plain
from sdq.client.saving import cannot_write, part_name
from sdq.errors import SdqError

MAX_LISTED = 20


class Failures:
    """Counts lines, keeps the first for people and writes all to a file in the input's format.

    The file is put in its place by `close`: until then the former one stays, which may be the
    input itself, ``source``. Raises `OutputError` when it cannot be written.
    """

    def __init__(self, path: str | None, reader: Reader | None, source: str = "") -> None:
        self._numbers: set[int] = set()
        self._listed: list[tuple[int, SdqError]] = []
        self._reader = reader
        self._has_head = False
        self._is_there = False
        self._path = None if path is None else Path(path)
        self._is_source = path is not None and _are_same(path, source)
        self._part: Path | None = None
        self._file: TextIO | None = None
        if self._path is not None:
            self._open(self._path)

    def _open(self, path: Path) -> None:
        self._part = path.parent / part_name()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error, elsewhere="name it by --failed FILE") from error

    @property
    def lines(self) -> int:
        """How many lines failed, or some of their pictures."""
        return len(self._numbers)

    def add(self, number: int, raw: str, error: SdqError) -> None:
        """A line that failed; only its first reason counts."""
        if number in self._numbers:
            return
        self._numbers.add(number)
        if len(self._listed) < MAX_LISTED:
            self._listed.append((number, error))
        if self._file is not None and self._path is not None and raw:
            try:
                self._write(self._file, raw)
            except OSError as error:
                self._give_up()
                raise cannot_write(self._path, error) from error

    def _write(self, file: TextIO, raw: str) -> None:
        if not self._has_head and self._reader is not None and self._reader.head:
            file.write(self._reader.head + "\n")
        self._has_head = True
        file.write(raw + "\n")

    def _give_up(self) -> None:
        """Leaves the former file, and nothing beside it."""
        if self._file is not None and self._part is not None:
            with suppress(OSError):  # what it still holds cannot be written either
                self._file.close()
            with suppress(OSError):
                self._part.unlink(missing_ok=True)
            self._file = None

    def close(self, *, was_interrupted: bool = False) -> None:
        """Puts the file in its place: empty when nothing failed. The input itself stays when the
        batch was interrupted, for it has lines that nobody has tried yet."""
        if self._file is None or self._part is None or self._path is None:
            return
        try:
            self._file.close()
            if not (was_interrupted and self._is_source):
                self._part.replace(self._path)
                self._is_there = True
        except OSError as error:
            raise cannot_write(self._path, error) from error
        finally:
            self._give_up()

    def tell(self, sink: Sink) -> None:
        """The first failures, with what to do about them."""
        for number, error in self._listed:
            sink.error(error, about=f"line {number}")
        if more := self.lines - len(self._listed):
            sink.say(f"and {more} more")
        if self.lines and self._is_there:
            sink.say(f"the lines that failed are in {plain(str(self._path))}")


def _are_same(path: str, source: str) -> bool:
    try:
        return bool(source) and Path(path).samefile(source)
    except OSError:
        return False
