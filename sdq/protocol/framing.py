"""Frames: four bytes of length, big-endian, then the payload."""

import re

from sdq.errors import FrameTooLarge as FrameTooLarge
from sdq.errors import LocalProtocolError
from sdq.protocol.constants import LENGTH_BYTES

_FOREIGN = (
    ("HTTP", re.compile(rb"GET |POST|HEAD|PUT |DELE|PATC|OPTI|CONN|TRAC|PRI |HTTP")),
    ("SSH", re.compile(rb"SSH-")),
    ("TLS", re.compile(rb"\x16\x03[\x00-\x04]", re.DOTALL)),
    ("the Redis protocol", re.compile(rb"\*[0-9]|-ERR|-NOA|-DEN|\+PON|\+OK\r")),
)
"""What other protocols begin with. Read as a length, each is over every limit of ours."""


def foreign_protocol(head: bytes) -> str:
    """The name of the protocol that begins with these four bytes, or an empty text."""
    return next((name for name, pattern in _FOREIGN if pattern.match(head)), "")


def _too_large(head: bytes, limit_bytes: int) -> FrameTooLarge:
    if foreign := foreign_protocol(head):
        return FrameTooLarge(
            f"the other side speaks {foreign}, not the sdq protocol",
            hint="check the address and the port; an sdq server is started by `sdq server`",
            foreign=foreign,
        )
    size = int.from_bytes(head, "big")
    return FrameTooLarge(
        f"a frame of {size} bytes is over the limit of {limit_bytes} bytes",
        hint="the limits are in the server's Welcome message",
    )


def frame(payload: bytes, limit_bytes: int) -> bytes:
    """The payload with its length in front."""
    if len(payload) > limit_bytes:
        raise LocalProtocolError(
            f"a frame of {len(payload)} bytes is over the peer's limit of {limit_bytes} bytes"
        )
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


class FrameDecoder:
    """Cuts a byte stream into payloads. Holds at most one incomplete frame."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.error: FrameTooLarge | None = None
        self._buffer = bytearray()  # begins with a frame that is not complete
        self._wanted = LENGTH_BYTES  # bytes in the buffer before it is worth a look

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without cutting a frame."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now.

        A length over the limit sets ``error`` before memory is taken for it; the frames in
        front of it are still returned, and whatever is fed later is ignored.
        """
        if self.error is not None:
            return []
        if not self._buffer:
            payloads, start = self._cut(data)
            self._buffer += memoryview(data)[start:]
        else:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            payloads, start = self._cut(self._buffer)
            del self._buffer[:start]
        return payloads

    def _cut(self, data: bytes | bytearray) -> tuple[list[bytes], int]:
        """The complete payloads at the beginning of ``data``, and where they end."""
        payloads: list[bytes] = []
        start = 0
        self._wanted = LENGTH_BYTES
        with memoryview(data) as view:
            while len(view) - start >= LENGTH_BYTES:
                begin = start + LENGTH_BYTES
                size = int.from_bytes(view[start:begin], "big")
                if size > self.limit_bytes:
                    self.error = _too_large(bytes(view[start:begin]), self.limit_bytes)
                    return payloads, len(view)
                if len(view) < begin + size:
                    self._wanted = LENGTH_BYTES + size
                    break
                payloads.append(bytes(view[begin : begin + size]))
                start = begin + size
        return payloads, start
