"""What a picture file says of itself, read as quickly as can be."""

from pathlib import Path
from typing import NamedTuple

from sdq.errors import UsageError

MAX_FILE_BYTES = 256 * 1024 * 1024
_HEAD_BYTES = 64 * 1024
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


class Existing(NamedTuple):
    """``key``: of the picture, as its sdq text says; ``None``: it is none of ours. ``is_whole``:
    its last bytes are there."""

    key: str | None
    is_whole: bool


def existing(path: Path) -> Existing | None:
    """The file at ``path``; ``None`` where there is nothing, or an empty file, as a machine leaves
    it that lost its power. A link that leads nowhere, a folder, or what cannot be read is nothing
    of ours."""
    try:
        if path.is_symlink() and not path.exists():
            return Existing(None, is_whole=True)
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return Existing(None, is_whole=True)
        return _read(path) if path.stat().st_size else None
    except OSError:
        return Existing(None, is_whole=True)


def _read(path: Path) -> Existing:
    with path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
        size_bytes = file.seek(0, 2)
        file.seek(max(0, size_bytes - len(_PNG_END)))
        tail = file.read()
        # The texts of a PNG stand before its pixels; of the others, Pillow wants all.
        if not data.startswith(_PNG_BEGIN) and size_bytes > len(data):
            file.seek(0)
            data = file.read()
    return Existing(_key(data), _is_whole(data, tail, size_bytes))


def _is_whole(data: bytes, tail: bytes, size_bytes: int) -> bool:
    if data.startswith(_PNG_BEGIN):
        return tail == _PNG_END
    if data.startswith(_JPEG_BEGIN):
        return tail.endswith(_JPEG_END)
    return data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 <= size_bytes


def _key(data: bytes) -> str | None:
    from sdq.metadata import read  # Pillow, 20 ms, for files that exist

    try:
        provenance = read(data)
    except UsageError:
        return None
    return None if provenance is None else provenance.key
