"""The only module of the protocol that knows asyncio: a connection over a TCP stream."""

import asyncio
import contextlib
from collections import deque
from typing import Generic, TypeVar

import msgspec

from sdq.errors import ConnectionFailed, ProtocolError
from sdq.protocol.connection import Connection, ConnectionState
from sdq.protocol.constants import MAX_OUTBOX_BYTES, MIN_TAKEN_BYTES, WRITE_TIMEOUT_SECONDS
from sdq.protocol.messages import ErrorReply

Incoming = TypeVar("Incoming")

READ_CHUNK_BYTES = 256 * 1024


class Stream(Generic[Incoming]):
    """Messages over one TCP connection.

    One task receives; any task may send. What waits for a slow peer is bounded: over
    ``max_outbox_bytes`` the connection is aborted, and `drained` gives up on a peer that
    takes next to nothing for ``write_timeout_seconds``.
    """

    def __init__(
        self,
        connection: Connection[Incoming],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        max_outbox_bytes: int = MAX_OUTBOX_BYTES,
        write_timeout_seconds: float = WRITE_TIMEOUT_SECONDS,
    ) -> None:
        self.connection = connection
        self._reader = reader
        self._writer = writer
        self._max_outbox_bytes = max_outbox_bytes
        self._write_timeout_seconds = write_timeout_seconds
        self._sent_bytes = 0
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()
        self._events: deque[Incoming | ProtocolError] = deque()

    @property
    def peer(self) -> str:
        """The other side's address, for people."""
        name = self._writer.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "unknown")

    @property
    def local_host(self) -> str:
        """The address under which the peer reached us."""
        name = self._writer.get_extra_info("sockname")
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def silent_seconds(self) -> float:
        """How long nothing has come. Cheaper to look at now and then than a timer for each read."""
        return self._clock() - self._heard_at

    @property
    def unread_bytes(self) -> int:
        """What waits in the outbox for the peer."""
        return self._writer.transport.get_write_buffer_size()

    def hang_up(self) -> None:
        """Ends the connection once the outbox is sent; `receive` then sees its end."""
        self._writer.close()

    async def receive(
        self, timeout_seconds: float | None = None
    ) -> Incoming | ProtocolError | None:
        """The next message; an error as a value; ``None`` at the end of the stream.

        After an error that closed the connection nothing more is read: ``None`` again.

        Raises `TimeoutError` after ``timeout_seconds`` of silence and `ConnectionFailed` when
        the line breaks. Safe to cancel: no byte is lost.
        """
        while not self._events:
            if self.connection.state is ConnectionState.CLOSED:
                return None
            data = await self._read(timeout_seconds)
            if not data:
                return self.connection.receive_end()
            self._events.extend(self.connection.receive(data))
        return self._events.popleft()

    async def _read(self, timeout_seconds: float | None) -> bytes:
        if timeout_seconds is None:
            return await self._read_now()
        async with asyncio.timeout(timeout_seconds):
            return await self._read_now()

    async def _read_now(self) -> bytes:
        try:
            data = await self._reader.read(READ_CHUNK_BYTES)
        except OSError as error:  # ETIMEDOUT too: that is a broken line, not silence
            raise ConnectionFailed(f"the connection broke: {error}") from error
        self._heard_at = self._clock()
        return data

    def send(self, message: msgspec.Struct) -> None:
        """Puts a message into the outbox; never waits."""
        self.send_bytes(self.connection.send(message))

    def send_bytes(self, data: bytes) -> None:
        """Puts bytes that `Connection.send` made into the outbox; never waits.

        Raises `ConnectionFailed` when the peer has left too much unread or is gone.
        """
        if self._writer.is_closing():
            raise ConnectionFailed("the connection is closed")
        waiting = self.unread_bytes
        if waiting + len(data) > self._max_outbox_bytes:
            self.abort()
            raise ConnectionFailed(f"{self.peer} reads too slowly: {waiting} bytes wait for it")
        self._sent_bytes += len(data)
        self._writer.write(data)

    def send_error(self, reply: ErrorReply) -> None:
        """Puts an error reply into the outbox, even after the error that ends the connection."""
        self.send_bytes(self.connection.refuse(reply))

    async def linger(self, timeout_seconds: float = 1.0, max_bytes: int = 8 * 1024 * 1024) -> None:
        """Ends our side and throws away what the peer still sends, for a bounded while.

        Closing a socket with unread bytes resets it, and the peer might never see the error
        that we sent last.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._writer.drain()
                self._writer.write_eof()
                while max_bytes > 0 and (data := await self._reader.read(READ_CHUNK_BYTES)):
                    max_bytes -= len(data)

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was sent. Safe to cancel.

        Raises `ConnectionFailed` when the line breaks, or when the peer takes less than
        ``MIN_TAKEN_BYTES`` in ``write_timeout_seconds``: a slow line may go on, a stuck one not.
        """
        while self.unread_bytes:  # nothing waits: nothing to do
            before = self._taken_bytes
            deadline = asyncio.timeout(self._write_timeout_seconds)
            try:
                async with deadline:
                    await self._writer.drain()
                return
            except OSError as error:
                if not deadline.expired():
                    raise ConnectionFailed(f"the connection broke: {error}") from error
                if self._taken_bytes - before < MIN_TAKEN_BYTES:
                    self.abort()
                    raise ConnectionFailed(f"{self.peer} stopped reading") from error

    @property
    def _taken_bytes(self) -> int:
        return self._sent_bytes - self.unread_bytes

    def abort(self) -> None:
        """Ends the connection now; what waits in the outbox is lost."""
        self.connection.state = ConnectionState.CLOSED
        self._writer.transport.abort()

    async def close(self) -> None:
        """Sends what waits, then closes. Never raises for a peer that is already gone.

        A peer that does not take it in ``write_timeout_seconds`` is cut off; so is one that
        is left by cancelling.
        """
        self.connection.state = ConnectionState.CLOSED
        self._writer.close()
        try:
            async with asyncio.timeout(self._write_timeout_seconds):
                await self._writer.wait_closed()
        except OSError:  # TimeoutError is one
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise
