"""Where pictures go: names that are checked before anything is drawn, files that are whole."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdq.cli.output import write_data
from sdq.cli.patterns import Pattern, escaped, model_part, slug_of
from sdq.client.saving import cannot_write, format_of, in_format, part_name, write_whole
from sdq.errors import OutputError, UsageError
from sdq.spec import SEED_LIMIT, ImageSpec, SpecDraft

DEFAULT_PATTERN = "{slug}-{key:8}.png"
STDOUT = "-"
ELSEWHERE = "choose another place with -o"
ENDINGS = ".png, .jpg, .jpeg or .webp, or with / for a folder"


@dataclass(frozen=True)
class Named:
    """What a picture's name is made of. ``first_n``: the ``{n}`` of index 0 of its request."""

    first_n: int
    index: int
    spec: ImageSpec
    key: str

    def values(self) -> dict[str, str | int]:
        return {
            "n": self.first_n + self.index,
            "index": self.index,
            "seed": self.spec.seed,
            "slug": slug_of(self.spec.prompt),
            "key": self.key,
            "model": model_part(self.spec.model),
        }


class Outputs:
    """The meaning of ``-o``.

    ``out.png`` is one file, or ``out-1.png``, ``out-2.png`` … for several pictures; ``dir/``
    or an existing folder takes names of the default pattern; anything with fields is a
    pattern; ``-`` is standard output. Raises `UsageError` where that cannot work.
    """

    def __init__(
        self, output: str | None, *, count: int = 1, many_prompts: bool = False, force: bool = False
    ) -> None:
        self.force = force
        self.to_stdout = output == STDOUT
        several = count > 1 or many_prompts
        if self.to_stdout:
            _check_stdout(several)
        chosen = DEFAULT_PATTERN if output is None or self.to_stdout else in_folder(output)
        self.pattern = Pattern(chosen)
        self._format = format_of(chosen, ends_with=ENDINGS)
        if several and not self.pattern.fields:
            ending = Path(chosen).suffix
            self.pattern = Pattern(f"{chosen.removesuffix(ending)}-{{n}}{ending}")
        elif several:
            _check_distinct(self.pattern, many_prompts)

    def refuse_json(self, as_json: bool) -> None:
        """Raises `UsageError` when the pictures are to go where the JSON goes."""
        if self.to_stdout and as_json:
            raise UsageError("-o - and --json both want standard output", hint="choose one of them")

    def prepare(self) -> None:
        """Creates the folder and proves that it can be written. Raises `OutputError`."""
        if self.to_stdout:
            return
        fixed = self.pattern.text.split("{")[0] if self.pattern.fields else self.pattern.fill({})
        folder = Path(fixed + "name").parent
        probe = folder / part_name()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            raise cannot_write(folder, error, elsewhere=ELSEWHERE) from error

    def refuse_existing(self, draft: SpecDraft, count: int, first_n: int) -> None:
        """Raises `OutputError` for a name that is known already and taken.

        Not known before the server answers: ``{key}``, and ``{seed}`` and ``{model}`` where
        the draft leaves them open.
        """
        values: dict[str, str | int] = {"slug": slug_of(draft.prompt)}
        if draft.model is not None:
            values["model"] = model_part(draft.model)
        for index in range(count):
            values |= {"n": first_n + index, "index": index}
            if draft.seed is not None:
                values["seed"] = (draft.seed + index) % SEED_LIMIT
            if self.pattern.fields <= values.keys():
                self._refuse(Path(self.pattern.fill(values)))

    def refuse_planned(self, planned: Iterable[Named]) -> None:
        """The same once the server has said what it will draw."""
        if not self.pattern.is_addressed_by_content:
            for named in planned:
                self._refuse(self.path_of(named))

    def path_of(self, named: Named) -> Path:
        return Path(self.pattern.fill(named.values()))

    def write(self, named: Named, png: bytes) -> Path | None:
        """Writes a picture, whole or not at all; its path, ``None`` for standard output."""
        data = in_format(png, self._format)
        if self.to_stdout:
            write_data(data)
            return None
        path = self.path_of(named)
        if self.pattern.is_addressed_by_content and _holds(path, data):
            return path
        self._refuse(path)
        write_whole(path, data, elsewhere=ELSEWHERE)
        return path

    def _refuse(self, path: Path) -> None:
        if not self.to_stdout and not self.force and os.path.lexists(path):
            raise OutputError(
                f"{path} exists already", hint="choose another name with -o, or give --force"
            )


def _check_stdout(several: bool) -> None:
    if several:
        raise UsageError(
            "-o - can write one picture only", hint="give a folder or a pattern: -o pictures/"
        )
    if sys.stdout.isatty():
        raise UsageError(
            "-o - would write the bytes of a picture to the terminal",
            hint="send them on: sdq generate … -o - | other-program, or > out.png",
        )


def in_folder(output: str) -> str:
    """The pattern that ``-o`` means, a folder's with names of the default pattern."""
    if not output:
        raise UsageError("-o is empty", hint="name a file, a folder/ or a pattern")
    if output.endswith("/") or Path(output).is_dir():
        return str(Path(escaped(output)) / DEFAULT_PATTERN)
    return output


def _check_distinct(pattern: Pattern, many_prompts: bool) -> None:
    enough = {"n"} if many_prompts else {"n", "index", "seed"}
    if not pattern.fields & enough and not pattern.is_addressed_by_content:
        raise UsageError(
            f"{pattern.text!r} would give several pictures one name",
            hint="put {n} into it, as in {n:03}-{slug}.png",
        )


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
