"""Picture files: which endings there are, and files that are written whole or not at all."""

import errno
import glob
import itertools
import os
from contextlib import suppress
from pathlib import Path

from sdq.errors import OutputError, UsageError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Pillow's names of the formats by the endings of files."""

ELSEWHERE = "choose another place"

_part_numbers = itertools.count()


def format_of(path: Path | str, *, ends_with: str = ".png, .jpg, .jpeg or .webp") -> str:
    """The format that a name's ending means. Raises `UsageError`, whose hint is ``ends_with``."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(
            f"{str(path)!r} ends in no format that sdq writes", hint=f"end it with {ends_with}"
        )
    return FORMATS[ending]


def in_format(png: bytes, file_format: str, quality: int = 92) -> bytes:
    """A picture of ours in this format, with its texts. ``quality`` as in `metadata.convert`."""
    if file_format == "PNG":
        return png
    from sdq.metadata import convert  # 20 ms with Pillow, for other formats only

    return convert(png, file_format, quality)


def part_name() -> str:
    """The name of a file that is being written, beside its place: the machine's and ours."""
    return f"{_part_begin()}{os.getpid()}-{next(_part_numbers)}.part"


def write_whole(path: Path, data: bytes, *, elsewhere: str = ELSEWHERE) -> None:
    """Writes a file beside its place and renames it; folders are made. Raises `OutputError`."""
    part = path.parent / part_name()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(data)
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error, elsewhere=elsewhere) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError, *, elsewhere: str = ELSEWHERE) -> OutputError:
    """What a person is told of it. ``elsewhere``: what to do unless the disk is full."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    again = "make room and run the same again: what was drawn is in the library"
    return OutputError(
        f"cannot write {path}: {error.strerror or error}", hint=again if is_full else elsewhere
    )


def sweep(folder: Path) -> None:
    """Removes what processes of this machine were about to write here when they were killed."""
    for part in folder.glob(f"{glob.escape(_part_begin())}*.part"):
        pid = part.name.removeprefix(_part_begin()).partition("-")[0]
        if pid.isdecimal() and not _is_running(int(pid)):
            with suppress(OSError):
                part.unlink()


def _part_begin() -> str:
    return f".sdq-{os.uname().nodename}-"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's
    return True
