"""Messages to bytes and back: msgpack on the wire, checked structs inside.

Two checks: the `msgpack` unpacker bounds lengths and nesting before it takes memory, then
`msgspec.convert` holds every field against its annotation.
"""

from typing import Any, TypeVar

import msgpack
import msgspec

from sdq.errors import ProtocolError
from sdq.protocol.constants import MAX_CONTAINER_ITEMS

T = TypeVar("T")


class InvalidMessage(ProtocolError):
    """The bytes are no message that is allowed here. ``request_id`` as far as it was readable."""

    code = "invalid_message"

    def __init__(self, message: str, *, request_id: int | None = None) -> None:
        super().__init__(message, hint="docs/protocol.md lists the messages and their fields")
        self.request_id = request_id


def encode(message: msgspec.Struct) -> bytes:
    """A message as msgpack; bytes stay bytes."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    return packed


def unpack(payload: bytes | memoryview) -> Any:
    """The plain values in a payload, or `InvalidMessage`."""
    try:
        return msgpack.unpackb(
            payload,
            max_array_len=MAX_CONTAINER_ITEMS,
            max_map_len=MAX_CONTAINER_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise InvalidMessage(f"not valid msgpack: {reason}") from error


def decode(payload: bytes | memoryview, kind: type[T]) -> T:
    """A message of one of the types in ``kind``, or `InvalidMessage`."""
    plain = unpack(payload)
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise InvalidMessage(str(error), request_id=_request_id(plain)) from error


def _request_id(plain: object) -> int | None:
    if isinstance(plain, dict):
        found = plain.get("request_id")
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 2**53:
            return found
    return None
