"""A client without the client's code: it may be wrong, rude or slow, and from another address."""

import asyncio
import struct
from contextlib import suppress
from typing import Any

import msgpack

HELLO = {"type": "hello", "oldest_protocol": 1, "newest_protocol": 1, "client": "raw"}
PATIENCE_SECONDS = 10


class RawClient:
    """One connection; messages are plain maps, as docs/protocol.md has them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, *, address: str = "127.0.0.1") -> "RawClient":
        """Not greeted yet. ``address`` of ours, 127.x.y.z: to the server another person."""
        local = None if address == "127.0.0.1" else (address, 0)
        return cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=local))

    @classmethod
    async def greeted(cls, port: int, *, address: str = "127.0.0.1") -> "RawClient":
        """Past the greeting."""
        line = await cls.connect(port, address=address)
        line.send(HELLO)
        welcome = await line.read()
        assert welcome["type"] == "welcome", welcome
        return line

    def send(self, message: object) -> None:
        payload = msgpack.packb(message)
        self.writer.write(struct.pack(">I", len(payload)) + payload)

    async def read(self) -> dict[str, Any]:
        """The next message. Raises `TimeoutError` when none comes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            (length,) = struct.unpack(">I", await self.reader.readexactly(4))
            message: dict[str, Any] = msgpack.unpackb(await self.reader.readexactly(length))
            return message

    async def read_until(self, *kinds: str) -> dict[str, Any]:
        """The next message of one of these types; others are passed over."""
        while (message := await self.read())["type"] not in kinds:
            pass
        return message

    async def ask(self, message: dict[str, Any], *kinds: str) -> dict[str, Any]:
        """Sends a request; the answer of these types, or the error."""
        self.send(message)
        return await self.read_until("errorreply", *kinds)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def is_closed(self) -> bool:
        """Whether the server ended the connection and nothing is left unread."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True
