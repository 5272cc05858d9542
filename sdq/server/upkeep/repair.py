"""Pictures' rows and files compared, and brought together again.

A picture file says itself what it is: its spec, its key, the fingerprint of the model. So a row
can be made anew from its file. A file that is of no use is moved aside, never deleted.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sdq import metadata
from sdq.errors import SdqError
from sdq.server.library.files import PictureFiles, is_temporary, key_in, sha256_of
from sdq.server.library.index import PUT, row_of
from sdq.server.library.memory import StoredImage
from sdq.server.library.png import flaw_in
from sdq.spec import key_of

_ROWS = "SELECT key, size_bytes, sha256 FROM pictures WHERE key >= ? AND key < ?"
_DRAW_SECONDS = "SELECT draw_seconds FROM pictures WHERE key = ?"
_REMOVE = "DELETE FROM pictures WHERE key = ?"


class Row(NamedTuple):
    key: str
    size_bytes: int
    sha256: str  # of the file


class Flaw(NamedTuple):
    """Something between rows and files that is not as it should be."""

    kind: str  # row: it has no right file · file: it has no row · temporary · place
    path: Path
    text: str
    row: Row | None = None
    stamp: tuple[int, int] = (0, 0)  # of a file that has no row: another one is another flaw


class PictureCheck:
    """Blocks. ``connection`` is ``None`` while there is no database that could be asked."""

    def __init__(self, directory: Path, connection: sqlite3.Connection | None) -> None:
        self._files = PictureFiles(directory)
        self._connection = connection

    def flaws(self, folder: str) -> Iterator[Flaw]:
        """What is wrong in one folder of pictures and with its rows."""
        place = self._files.directory / folder
        rows = {row.key: row for row in self._rows(folder)}
        for key, row in rows.items():
            if text := self._flaw_of(row):
                yield Flaw("row", self._files.path_of(key), text, row)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Flaw("place", place, f"no folder of pictures: {error.strerror}")
            return
        for entry in entries:
            if is_temporary(entry.name):
                text = "left by a server that was killed"
                yield Flaw("temporary", Path(entry.path), text, stamp=_stamp_of(entry))
            elif (found := key_in(entry.name)) and found not in rows:
                yield from self._without_row(entry)

    def _rows(self, folder: str) -> list[Row]:
        if self._connection is None:
            return []
        return [Row(*row) for row in self._connection.execute(_ROWS, (folder, folder + "g"))]

    def _flaw_of(self, row: Row) -> str:
        image = self._read(self._files.path_of(row.key))
        if isinstance(image, str):
            return image
        if len(image) != row.size_bytes:
            return f"its file has {len(image)} bytes instead of {row.size_bytes}"
        if sha256_of(image) != row.sha256:
            return "its file has changed"
        flaw = flaw_in(image)
        return f"its file is no whole picture: {flaw}" if flaw else ""

    def _without_row(self, entry: os.DirEntry[str]) -> Iterator[Flaw]:
        path = Path(entry.path)
        if self._connection is not None:
            yield Flaw("file", path, "it has no row", stamp=_stamp_of(entry))
            return
        image = self._read(path)
        if flaw := image if isinstance(image, str) else flaw_in(image):
            yield Flaw("file", path, flaw)

    def _read(self, path: Path) -> bytes | str:
        """The file, or why it cannot be read, in words."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return "its file is missing"
        except OSError as error:
            return f"its file cannot be read: {error.strerror}"


def _stamp_of(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:  # gone already
        return 0, 0
    return found.st_ino, found.st_mtime_ns


class PictureRepair:
    """Mends flaws. The caller holds the lock, and commits. Blocks."""

    def __init__(self, directory: Path, aside: Path, connection: sqlite3.Connection) -> None:
        self._files = PictureFiles(directory)
        self._aside = aside
        self._connection = connection

    def mend(self, flaw: Flaw) -> str:
        """What was done, in words. Raises `OSError`, `sqlite3.Error`: nothing was."""
        if flaw.kind == "temporary" and not flaw.path.is_dir():
            flaw.path.unlink(missing_ok=True)
            return "deleted"
        if flaw.kind == "place":
            with contextlib.suppress(NotADirectoryError):
                list(flaw.path.iterdir())  # a folder that we may not read stays where it is
            return f"moved to {self._move_aside(flaw.path)}"
        if flaw.row is None:
            if flaw.kind == "file" and self._adopt(flaw.path):
                return "it has its row again"
            return f"moved to {self._move_aside(flaw.path)}"
        if self._former_is_right(flaw.row):
            return "the one before is there again"
        if self._adopt(flaw.path):
            return "its row was made anew"
        done = "the row is removed: it will be drawn again"
        if os.path.lexists(flaw.path):
            done = f"moved to {self._move_aside(flaw.path)}, {done}"
        self._connection.execute(_REMOVE, (flaw.row.key,))
        return done

    def _former_is_right(self, row: Row) -> bool:
        """A replacement that was killed half-way left the picture that the row means."""
        former = self._files.former_of(row.key)
        with contextlib.suppress(OSError):
            if sha256_of(former.read_bytes()) == row.sha256:
                self._files.displace(row.key)
                return True
        return False

    def _adopt(self, path: Path) -> bool:
        """Makes the row of a file that is a whole picture of ours with the right key."""
        try:
            image = path.read_bytes()
            modified_at = path.stat().st_mtime
            said = None if flaw_in(image) else metadata.read(image)
        except PermissionError:
            raise  # nothing is known of the file: it stays, and so does its row
        except (OSError, SdqError):
            return False
        key = key_in(path.name)
        if said is None or said.key != key or key_of(said.spec, said.fingerprint) != key:
            return False
        known = self._connection.execute(_DRAW_SECONDS, (key,)).fetchone()
        stored = StoredImage(key, said.spec, image, known[0] if known else 0.0)
        # Its last use is not known: the retention counts from now on.
        row = row_of(stored, sha256_of(image), modified_at, time.time())
        self._connection.execute(PUT, row)
        return True

    def _move_aside(self, path: Path) -> Path:
        self._aside.mkdir(parents=True, exist_ok=True)
        place, number = self._aside / path.name, 1
        while os.path.lexists(place):
            place, number = self._aside / f"{path.name}.{number}", number + 1
        return path.rename(place)
