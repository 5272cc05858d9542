"""What a safetensors file says it holds, without reading the weights.

The format: eight bytes, little-endian, that say how long the header is, then the header as JSON
(github.com/huggingface/safetensors, "Format").
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from sdq.errors import ModelError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's own readers."""

_LENGTH_BYTES = 8
Shapes = dict[str, tuple[int, ...]]
"""By the name of the tensor."""


class _Tensor(msgspec.Struct):
    shape: tuple[int, ...] = ()


class _Notes(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


_HEADER = msgspec.json.Decoder(dict[str, _Tensor])
_NOTES = msgspec.json.Decoder(_Notes)
T = TypeVar("T")


def shapes_of(file: Path) -> Shapes:
    """Its tensors. Raises `ModelError` when it is no such file, and `OSError`."""
    return shapes_in(file.name, read_head(file))


def read_head(file: Path) -> bytes:
    """The beginning of a file, as far as its header goes. Raises `OSError`."""
    with file.open("rb") as reader:
        start = reader.read(_LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        return start + reader.read(min(length, MAX_HEADER_BYTES))


def shapes_in(name: str, head: bytes) -> Shapes:
    """The same from the beginning of a file, at least its header. Raises `ModelError`."""
    header = _decoded(_HEADER, name, head)
    header.pop("__metadata__", None)
    return {tensor: found.shape for tensor, found in header.items()}


def notes_in(name: str, head: bytes) -> dict[str, str]:
    """What its maker wrote down beside the tensors. Raises `ModelError`."""
    return _decoded(_NOTES, name, head).metadata


def _decoded(decoder: "msgspec.json.Decoder[T]", name: str, head: bytes) -> T:
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    if not 2 <= length <= MAX_HEADER_BYTES or len(head) < end:
        raise _broken(name)
    try:
        return decoder.decode(head[_LENGTH_BYTES:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(name) from error


def _broken(name: str) -> ModelError:
    return ModelError(
        f"{name} is no safetensors file", hint="`sdq worker install` fetches a model's files again"
    )
