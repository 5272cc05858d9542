"""Picture files on disk: ``ab/abcdef….png`` below one directory, whole or not at all.

Everything here blocks: the library calls it in threads. No file is ever changed in place.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Set
from pathlib import Path

FOLDERS = tuple(f"{number:02x}" for number in range(256))

_STAGED_SUFFIX = ".tmp"
_FORMER_SUFFIX = ".old"
_PICTURE_NAME = re.compile(r"([0-9a-f]{64})\.png")
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{64}\.png\.(?:tmp|old)")


def sha256_of(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def _staged(path: Path) -> Path:
    return path.with_name(path.name + _STAGED_SUFFIX)


def _former(path: Path) -> Path:
    return path.with_name(path.name + _FORMER_SUFFIX)


class PictureFiles:
    """The files below ``directory``. One writer at a time: temporary names are not unique."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path_of(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.png"

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
            _former(path).hardlink_to(path)
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
            _former(path).replace(path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)

    def settle(self, key: str) -> None:
        """Lets go of what `place` kept aside. Raises `OSError`."""
        _former(self.path_of(key)).unlink(missing_ok=True)

    def read(self, key: str, size_bytes: int) -> bytes | None:
        """The file, or ``None`` when there is none of this size. Raises `OSError`."""
        try:
            with self.path_of(key).open("rb") as file:
                if os.fstat(file.fileno()).st_size != size_bytes:
                    return None
                return file.read()
        except FileNotFoundError:
            return None

    def remove(self, keys: Iterable[str]) -> None:
        """Deletes the files, as far as they exist. Raises `OSError`."""
        for key in keys:
            self.path_of(key).unlink(missing_ok=True)

    def sweep(self, folder: str, known: Set[str]) -> tuple[int, set[str]]:
        """Deletes temporary files and pictures that are not in ``known`` from one folder.

        Gives how many were deleted, and the keys of ``known`` that have no file. Files that
        cannot be ours are left alone. Raises `OSError`.
        """
        deleted, missing = 0, set(known)
        try:
            entries = list(os.scandir(self.directory / folder))
        except (FileNotFoundError, NotADirectoryError):
            return 0, missing
        for entry in entries:
            picture = _PICTURE_NAME.fullmatch(entry.name)
            if picture and picture[1] in missing:
                missing.discard(picture[1])
            elif picture or _TEMPORARY_NAME.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)
                deleted += 1
        return deleted, missing
