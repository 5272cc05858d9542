"""One client's connection: handshake, messages in, replies out, and a clean end."""

import asyncio
import logging
from typing import Protocol

import msgspec

from sdq import __version__
from sdq.errors import (
    ConnectionFailed,
    FrameTooLarge,
    LocalProtocolError,
    ProtocolError,
    SdqError,
    ServerBusy,
    UsageError,
)
from sdq.protocol.codec import InvalidMessage
from sdq.protocol.connection import ServerConnection
from sdq.protocol.constants import HANDSHAKE_TIMEOUT_SECONDS, WRITE_TIMEOUT_SECONDS
from sdq.protocol.job_messages import CancelJobs
from sdq.protocol.messages import (
    Cancel,
    ClientMessage,
    ErrorReply,
    Generate,
    Hello,
    Limits,
    Ping,
    Pong,
)
from sdq.protocol.stream import Stream
from sdq.server.outboxes import Outboxes
from sdq.server.queue.previews import MAX_BEHIND_BYTES
from sdq.server.queue.subscriptions import Request

log = logging.getLogger(__name__)


class Handler(Protocol):
    """What a session needs from the rest of the server."""

    def quick(self, message: Generate, session: "Session") -> bool:
        """Answers at once if that needs no waiting. Raises `SdqError`."""

    async def handle(self, message: ClientMessage, session: "Session") -> None:
        """Answers a request. Raises `SdqError`, which ends that request."""

    async def left(self, request: Request) -> None:
        """The client of this request is gone."""


class Session:
    """Runs until the client leaves, breaks the framing, or is silent for too long."""

    def __init__(
        self,
        stream: Stream[ClientMessage],
        connection: ServerConnection,
        handler: Handler,
        limits: Limits,
        outboxes: Outboxes,
    ) -> None:
        self._stream = stream
        self._outboxes = outboxes
        self._connection = connection
        self._handler = handler
        self._limits = limits
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._is_dismissed = False
        self.requests: dict[int, Request] = {}  # those that wait for pictures
        self.identity = stream.peer.rpartition(":")[0]
        self.local_host = stream.local_host

    async def run(self) -> None:
        """Serves the connection. Cancelling closes it; committed jobs go on."""
        self._outboxes.add(self._stream)
        try:
            if await self._greet():
                await self._serve()
        except TimeoutError:
            self._complain(None, ProtocolError("no Hello came in time: the line is closed"))
        except ConnectionFailed as error:
            log.debug("%s: %s", self._stream.peer, error)
        finally:
            try:
                await self._end()
                if self._is_dismissed:
                    await self._stream.linger()
            finally:  # also when the server closes while the client's leaving is written down
                self._outboxes.discard(self._stream)
                await self._stream.close()

    def dismiss(self, error: SdqError) -> None:
        """The client's last word from us, after all that was sent before. Then cancel `run`: it
        gives a slow reader a bounded while to take what waits."""
        self._complain(None, error)
        self._is_dismissed = True

    def end_if_silent(self) -> None:
        """Ends the connection of a client of which nothing was heard, pings included, for long.

        The server looks every few seconds: a timer for each read would cost every hit. One that
        does not take our last words either is cut off.
        """
        over_seconds = self._stream.silent_seconds - self._limits.idle_timeout_seconds
        if over_seconds > WRITE_TIMEOUT_SECONDS:
            self._stream.abort()
        elif over_seconds > 0:
            self._complain(None, ProtocolError("nothing came for too long: the line is closed"))
            self._stream.hang_up()

    async def _greet(self) -> bool:
        first = await self._stream.receive(HANDSHAKE_TIMEOUT_SECONDS)
        if isinstance(first, Hello):
            self._stream.send_bytes(self._connection.welcome(f"sdq {__version__}"))
            return True
        if isinstance(first, FrameTooLarge) and first.foreign == "HTTP":
            self._stream.send_bytes(_in_http(first))
            await self._stream.linger()
        elif isinstance(first, ProtocolError):
            self._complain(None, first)
            await self._stream.linger()
        return False

    async def _serve(self) -> None:
        while True:
            event = await self._stream.receive()
            if event is None:
                return
            if isinstance(event, InvalidMessage):
                self._complain(event.request_id, event)
            elif isinstance(event, ProtocolError):
                self._complain(None, event)
                await self._stream.linger()
                return
            else:
                self._take(event)
            await self._stream.drained()

    def _take(self, message: ClientMessage) -> None:
        if isinstance(message, Ping):
            self.send(Pong(message.number))
            return
        if isinstance(message, Pong | Hello):
            return
        try:
            ends_others = isinstance(message, Cancel | CancelJobs)
            self._check_room(message.request_id, ends_others=ends_others)
            if isinstance(message, Generate) and self._handler.quick(message, self):
                return
        except SdqError as error:
            self._complain(message.request_id, error)
            return
        task = asyncio.create_task(self._answer(message))
        self._tasks[message.request_id] = task

    def _check_room(self, request_id: int, *, ends_others: bool) -> None:
        """What ends other requests is taken even when there is no room left for more of them."""
        if request_id in self._tasks or request_id in self.requests:
            raise InvalidMessage(f"request_id {request_id} is already under way")
        under_way = len(self._tasks.keys() | self.requests.keys())
        if under_way >= self._limits.max_requests_in_flight * (2 if ends_others else 1):
            raise ServerBusy(
                f"{under_way} requests are under way on this connection",
                hint="wait for answers before asking on",
            )

    async def _answer(self, message: ClientMessage) -> None:
        assert not isinstance(message, Hello | Ping | Pong)
        try:
            await self._handler.handle(message, self)
        except SdqError as error:
            self._complain(message.request_id, error)
            await self._forget(message.request_id)
        except Exception:
            # A defect of ours must not take the other requests of this connection with it.
            log.exception("request %d failed", message.request_id)
            self._complain(
                message.request_id,
                SdqError("the server failed at this request", hint="its log says why"),
            )
            await self._forget(message.request_id)
        finally:
            del self._tasks[message.request_id]

    async def _forget(self, request_id: int) -> None:
        """No more news for this request, if it is one that waits."""
        request = self.requests.pop(request_id, None)
        if request is None:
            return
        try:
            await self._handler.left(request)
        except SdqError as error:  # the disk is full, say; nobody waits for the answer
            log.warning("request %d: %s", request_id, error)

    async def finished(self, request_id: int) -> None:
        """Waits until nobody works at this request; its number may be used again then."""
        task = self._tasks.get(request_id)
        if task is not None:
            await asyncio.wait({task})

    @property
    def is_behind(self) -> bool:
        """Whether it has left so much unread that what can be left out should be."""
        return self._stream.unread_bytes > MAX_BEHIND_BYTES

    def send(self, message: msgspec.Struct) -> None:
        """Sends a reply; a client that is gone just does not hear it."""
        if self._is_dismissed:
            return
        request_id = getattr(message, "request_id", None)
        try:
            self._stream.send(message)
        except ConnectionFailed as error:
            log.debug("%s did not hear a reply: %s", self._stream.peer, error)
        except (LocalProtocolError, UsageError) as error:
            log.warning("%s did not hear a reply: %s", self._stream.peer, error)
            if request_id not in self.requests:  # nothing else comes: it would wait for ever
                self._complain(request_id, SdqError(f"the answer cannot be sent: {error}"))
        self._outboxes.check(self._stream)
        if request_id in self.requests and self.requests[request_id].is_done:
            del self.requests[request_id]

    async def drained(self) -> None:
        """Waits for a slow reader, for a bounded time; never raises."""
        try:
            await self._stream.drained()
        except ConnectionFailed as error:
            log.debug("%s: %s", self._stream.peer, error)

    def _complain(self, request_id: int | None, error: SdqError) -> None:
        try:
            reply = ErrorReply(request_id, error.code, error.message, error.hint)
            self._stream.send_error(reply)
        except (ConnectionFailed, LocalProtocolError) as failure:
            log.debug("%s did not hear an error: %s", self._stream.peer, failure)

    async def _end(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for request_id in list(self.requests):
            await self._forget(request_id)


def _in_http(error: FrameTooLarge) -> bytes:
    """For whoever opens the port in a browser: the same words, so that they can be read."""
    head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    text = f"{error.message}\n{error.hint}\n"
    return f"{head}Content-Length: {len(text.encode())}\r\nConnection: close\r\n\r\n{text}".encode()
