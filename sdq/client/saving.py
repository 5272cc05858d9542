"""Picture files: which endings there are, and files that are written whole or not at all."""

import errno
import itertools
import os
from contextlib import suppress
from pathlib import Path

from sdq.errors import OutputError, UsageError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Pillow's names of the formats by the endings of files."""

_part_numbers = itertools.count()


def format_of(path: Path | str) -> str:
    """The format that a name's ending means. Raises `UsageError`."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(
            f"{str(path)!r} ends in no format that sdq writes",
            hint="end it with .png, .jpg, .jpeg or .webp",
        )
    return FORMATS[ending]


def part_name() -> str:
    """The name of a file that is being written, beside its place."""
    return f".sdq-{os.getpid()}-{next(_part_numbers)}.part"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file beside its place and renames it; folders are made. Raises `OutputError`."""
    part = path.parent / part_name()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(data)
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> OutputError:
    """What a person is told of it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    again = "run the same again: what was drawn is in the library"
    hint = f"make room and {again}" if full else "choose another place"
    return OutputError(f"cannot write {path}: {error.strerror or error}", hint=hint)
