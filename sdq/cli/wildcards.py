"""Wildcard files: the lines of ``colors.txt`` for ``__colors__`` in a template."""

from difflib import get_close_matches
from pathlib import Path

from sdq.errors import UsageError

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_LINES = 100_000
MAX_FILES_NAMED = 1_000
"""Of a folder, so many are looked at for a name that is nearly right."""


class WildcardFolder:
    """A folder of ``.txt`` files, also in folders of its own (``__animals/cats__``).

    One alternative a line; blank lines and those that begin with ``#`` do not count. Each file is
    read once. Raises `UsageError` for what is no folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).expanduser()
        if not self._folder.is_dir():
            raise UsageError(
                f"{folder} is no folder", hint="--wildcards names the folder of the .txt files"
            )
        self._read: dict[str, tuple[str, ...]] = {}

    def __call__(self, name: str) -> tuple[str, ...]:
        """The alternatives of a wildcard. Raises `UsageError` when there is no such file, or it
        cannot be read, or holds none."""
        if name not in self._read:
            self._read[name] = self._lines(name)
        return self._read[name]

    def _lines(self, name: str) -> tuple[str, ...]:
        path = self._folder / f"{name}.txt"
        if ".." in Path(name).parts or not path.is_file():
            raise UsageError(
                f"there is no wildcard file {name}.txt in {self._folder}", hint=self._nearest(name)
            )
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise UsageError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        lines = [line.strip() for line in text.splitlines()]
        found = tuple(line for line in lines if line and not line.startswith("#"))
        if not 1 <= len(found) <= MAX_LINES:
            raise UsageError(f"{path} holds {len(found)} lines: 1 to {MAX_LINES} will do")
        return found

    def _nearest(self, name: str) -> str:
        names: list[str] = []
        for path in self._folder.rglob("*.txt"):
            names.append(path.relative_to(self._folder).with_suffix("").as_posix())
            if len(names) >= MAX_FILES_NAMED:
                break
        near = get_close_matches(name, names, 1)
        return f"did you mean __{near[0]}__?" if near else "one alternative a line, in UTF-8"
