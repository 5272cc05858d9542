"""Picture files on disk: ``ab/abcdef….png`` below one directory, whole or not at all.

Everything here blocks: the library calls it in threads. No file is ever changed in place.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import NamedTuple

LIBRARY_NAME = "library"
"""The folder in the server's data directory."""

FOLDERS = tuple(f"{number:02x}" for number in range(256))

_STAGED_SUFFIX = ".tmp"
_FORMER_SUFFIX = ".old"
_GONE_SUFFIX = ".gone"
_PICTURE_NAME = re.compile(r"([0-9a-f]{64})\.png")
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{64}\.png\.(?:tmp|old|gone)")


def key_in(name: str) -> str | None:
    """The key of a picture's file name."""
    found = _PICTURE_NAME.fullmatch(name)
    return found[1] if found else None


def is_temporary(name: str) -> bool:
    """Whether only a server that was killed can have left a file of that name."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def sha256_of(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


class Swept(NamedTuple):
    deleted: int  # temporary files
    missing: set[str]  # known keys without a file
    strangers: list[str]  # keys of files that are not known


def _staged(path: Path) -> Path:
    return path.with_name(path.name + _STAGED_SUFFIX)


class PictureFiles:
    """The files below ``directory``. One writer at a time: temporary names are not unique."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path_of(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.png"

    def former_of(self, key: str) -> Path:
        """Where `place` keeps what was there before."""
        path = self.path_of(key)
        return path.with_name(path.name + _FORMER_SUFFIX)

    def stage(self, key: str, image: bytes) -> str:
        """Writes the picture beside its place and flushes it to the disk. Its SHA-256.

        Then comes `place`, or `unstage`. Raises `OSError`; no half file is left then.
        """
        path = self.path_of(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _staged(path).open("wb") as file:
                file.write(image)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self.unstage(key)
            raise
        return sha256_of(image)

    def unstage(self, key: str) -> None:
        """Throws away what `stage` wrote. Raises `OSError`."""
        _staged(self.path_of(key)).unlink(missing_ok=True)

    def place(self, key: str) -> None:
        """Puts what `stage` wrote into its place, in one step; what was there is kept aside.

        Then comes `settle`, or `displace`. Raises `OSError`; then only what was there is.
        """
        path = self.path_of(key)
        self.settle(key)
        # Where files cannot have two names, an undone replacement leaves a miss.
        with contextlib.suppress(OSError):
            self.former_of(key).hardlink_to(path)
        try:
            _staged(path).replace(path)
        except OSError:
            for tidy in (self.settle, self.unstage):
                with contextlib.suppress(OSError):
                    tidy(key)
            raise
        # The folder is not flushed: a rename lost in a power cut leaves a row without a file,
        # which is a miss.

    def displace(self, key: str) -> None:
        """Undoes `place`: what was there before is there again. Raises `OSError`."""
        path = self.path_of(key)
        try:
            self.former_of(key).replace(path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)

    def settle(self, key: str) -> None:
        """Lets go of what `place` kept aside. Raises `OSError`."""
        self.former_of(key).unlink(missing_ok=True)

    def read(self, key: str, size_bytes: int) -> bytes | None:
        """The file, or ``None`` when there is none of this size. Raises `OSError`."""
        try:
            with self.path_of(key).open("rb") as file:
                if os.fstat(file.fileno()).st_size != size_bytes:
                    return None
                return file.read()
        except FileNotFoundError:
            return None

    def hide(self, keys: Iterable[str]) -> None:
        """Takes the files out of their places, as far as they exist; they are still there.

        Then comes `remove`, or `unhide`. Raises `OSError`; some may be hidden then.
        """
        for key in keys:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self.path_of(key).rename(self._hidden(key))

    def unhide(self, keys: Iterable[str]) -> None:
        """Undoes `hide`, as far as it was done. Raises `OSError`."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._hidden(key).rename(self.path_of(key))

    def remove(self, keys: Iterable[str]) -> None:
        """Deletes files that are hidden. Raises `OSError`."""
        for key in keys:
            with contextlib.suppress(NotADirectoryError):
                self._hidden(key).unlink(missing_ok=True)

    def _hidden(self, key: str) -> Path:
        path = self.path_of(key)
        return path.with_name(path.name + _GONE_SUFFIX)

    def sweep(self, folder: str, known: Set[str]) -> Swept:
        """Deletes temporary files from one folder, and looks what else is there.

        Files that cannot be ours are left alone. Raises `OSError`.
        """
        deleted, missing, strangers = 0, set(known), []
        try:
            entries = list(os.scandir(self.directory / folder))
        except (FileNotFoundError, NotADirectoryError):
            return Swept(0, missing, [])
        for entry in entries:
            key = key_in(entry.name)
            if key in missing:
                missing.discard(key)
            elif key is not None:
                strangers.append(key)
            elif is_temporary(entry.name):
                Path(entry.path).unlink(missing_ok=True)
                deleted += 1
        return Swept(deleted, missing, strangers)
