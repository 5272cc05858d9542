"""Frames: four bytes of length, big-endian, then the payload."""

from sdq.errors import LocalProtocolError, ProtocolError
from sdq.protocol.constants import LENGTH_BYTES

_FOREIGN = {
    b"GET ": "HTTP",
    b"POST": "HTTP",
    b"HEAD": "HTTP",
    b"PUT ": "HTTP",
    b"OPTI": "HTTP",
    b"HTTP": "HTTP",
    b"SSH-": "SSH",
    b"\x16\x03\x01\x00": "TLS",
    b"\x16\x03\x01\x02": "TLS",
}


class FrameTooLarge(ProtocolError):
    """A length over the limit. Nothing was read of it; the stream cannot go on."""

    code = "frame_too_large"

    def __init__(self, head: bytes, limit_bytes: int) -> None:
        self.foreign = _FOREIGN.get(head, "")
        if self.foreign:
            super().__init__(
                f"the other side speaks {self.foreign}, not the sdq protocol",
                hint="check the address and the port; an sdq server is started by `sdq server`",
            )
        else:
            size = int.from_bytes(head, "big")
            super().__init__(
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
        self._buffer = bytearray()

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without cutting a frame."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now.

        Raises `FrameTooLarge` as soon as a length is known to be over the limit; complete
        frames that came before it in the same data are then lost with the connection.
        """
        self._buffer += data
        payloads, start = [], 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            head = bytes(self._buffer[start : start + LENGTH_BYTES])
            size = int.from_bytes(head, "big")
            if size > self.limit_bytes:
                raise FrameTooLarge(head, self.limit_bytes)
            end = start + LENGTH_BYTES + size
            if len(self._buffer) < end:
                break
            payloads.append(bytes(self._buffer[start + LENGTH_BYTES : end]))
            start = end
        del self._buffer[:start]
        return payloads
