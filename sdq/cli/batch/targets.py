"""Where the pictures of lines go, and which of them are there already."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec

from sdq.cli.batch.columns import BatchLine
from sdq.cli.batch.existing import existing
from sdq.cli.batch.planning import PlannedLine
from sdq.cli.files import DEFAULT_PATTERN, ELSEWHERE, ENDINGS, STDOUT, in_folder
from sdq.cli.patterns import Pattern, model_part, slug_of
from sdq.client.saving import format_of, in_format, sweep, write_whole
from sdq.errors import OutputError, UsageError
from sdq.protocol.job_messages import PlannedPicture

LINE = "line"
"""The field of a pattern that only batches have: the number of the line in the file."""


class Standing(Enum):
    """How a picture's file is."""

    MISSING = "missing"
    UP_TO_DATE = "up to date"
    TAKEN = "taken"  # by another picture, or by what is none of ours


class Target(msgspec.Struct, frozen=True):
    """The file of one picture; ``path`` ``None``: it is not to be written. ``problem``: why it
    cannot be, when it is `Standing.TAKEN`."""

    picture: PlannedPicture
    path: Path | None
    standing: Standing
    problem: OutputError | None = None


class Targets:
    """``output``: as ``-o``; lines with an ``output`` of their own go there. ``keeps``: whether a
    file that holds the very picture is left as it is. ``writes``: whether there are files at all.

    Remembers where each picture goes, some hundred bytes for each, so that no two different ones
    go to one place. Raises `UsageError` for a pattern that cannot work.
    """

    def __init__(
        self,
        output: str | None,
        *,
        force: bool = False,
        keeps: bool = True,
        writes: bool = True,
    ) -> None:
        if output == STDOUT:
            raise UsageError("a batch cannot write pictures to standard output")
        self._force = force
        self._keeps = keeps
        self._writes = writes
        self._usual = _Place(DEFAULT_PATTERN if output is None else output, has_many=True)
        self._owners: dict[int, int] = {}  # hashes of path and key
        self._swept: set[Path] = set()

    def of(self, planned: PlannedLine) -> Iterator[Target]:
        """The targets of a line's pictures, in order. Raises `UsageError` for an ``output`` that
        cannot work."""
        place = self._place_of(planned.line)
        for picture in planned.outlook.pictures:
            if not self._writes:
                yield Target(picture, None, Standing.MISSING)
                continue
            path = place.path_of(planned, picture)
            if problem := self._claim(path, picture.key):
                yield Target(picture, path, Standing.TAKEN, problem)
            else:
                yield self._look(picture, path)

    def write(self, target: Target, png: bytes) -> None:
        """Puts a picture there, whole or not at all. Raises `OutputError`."""
        if target.path is None:
            return
        folder = target.path.parent
        if folder not in self._swept and len(self._swept) < 1_000:
            self._swept.add(folder)
            sweep(folder)
        data = in_format(png, format_of(target.path, ends_with=ENDINGS))
        write_whole(target.path, data, elsewhere=ELSEWHERE)

    def _place_of(self, line: BatchLine) -> "_Place":
        if line.output is None:
            return self._usual
        return _Place(line.output, has_many=line.count > 1 or line.variants > 1, is_own=True)

    def _claim(self, path: Path, key: str) -> OutputError | None:
        name, owner = hash(str(path)), hash(key)
        if self._owners.setdefault(name, owner) == owner:
            return None
        return OutputError(
            f"{path} is the file of another line's picture",
            hint="put {line} or {n} into the pattern of -o, or {key:8}",
        )

    def _look(self, picture: PlannedPicture, path: Path) -> Target:
        there = existing(path)
        if there is None:
            return Target(picture, path, Standing.MISSING)
        if there.key == picture.key:
            is_good = there.is_whole and self._keeps
            return Target(picture, path, Standing.UP_TO_DATE if is_good else Standing.MISSING)
        if self._force:
            return Target(picture, path, Standing.MISSING)
        what = "something else" if there.key is None else "another picture"
        problem = OutputError(
            f"{path} exists and holds {what}",
            hint="--force replaces it; files that hold the right picture stay as they are",
        )
        return Target(picture, path, Standing.TAKEN, problem)


class _Place:
    """An ``output``, parsed. ``is_own``: of one line, which counts from 1 for itself where the
    output is one name for several pictures."""

    def __init__(self, output: str, *, has_many: bool, is_own: bool = False) -> None:
        text = in_folder(output)
        format_of(text, ends_with=ENDINGS)
        self._counts_itself = False
        self._pattern = Pattern(text, more=(LINE,))
        if has_many and not self._pattern.fields:
            self._counts_itself = is_own
            ending = Path(text).suffix
            self._pattern = Pattern(f"{text.removesuffix(ending)}-{{n}}{ending}")

    def path_of(self, planned: PlannedLine, picture: PlannedPicture) -> Path:
        line, spec = planned.line, picture.spec
        n = planned.first_n + picture.index
        return Path(
            self._pattern.fill(
                {
                    "n": line.variant * line.count + picture.index + 1
                    if self._counts_itself
                    else n,
                    "index": picture.index,
                    "seed": spec.seed,
                    "slug": slug_of(spec.prompt),
                    "key": picture.key,
                    "model": model_part(spec.model),
                    LINE: line.number,
                }
            )
        )
