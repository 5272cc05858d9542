"""One TCP connection to a server: handshake, replies to whoever asked, pings, a clean end."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from sdq import __version__
from sdq.client.losses import HungUp
from sdq.client.mailbox import Budget, Mailbox
from sdq.errors import (
    ConnectionFailed,
    InvalidMessage,
    ProtocolError,
    ProtocolMismatch,
    SdqError,
    ServerBusy,
    from_code,
)
from sdq.protocol.connection import ClientConnection, VersionMismatch
from sdq.protocol.constants import PING_INTERVAL_SECONDS
from sdq.protocol.messages import ErrorReply, Ping, Pong, ServerMessage, Welcome
from sdq.protocol.stream import READ_CHUNK_BYTES, Stream

IS_IT_RUNNING = "is the server running? start one with `sdq up` or name another with --server"
RUN_AGAIN = "run the same command again: what was drawn meanwhile comes from the library"
WRONG_PORT = "check the address and the port; an sdq server is started by `sdq server`"

CLIENT_NAME = f"sdq {__version__}\n\n"
"""The line ends make a line-based server (HTTP, Redis) answer at once that it does not
understand, where it would otherwise wait for the rest of the line."""


class Line:
    """An open connection. Two tasks of its own, ended and awaited by `close`.

    Not for several event loops. Requests may overlap in any number up to the server's limit,
    and one that nobody reads holds up no other.
    """

    def __init__(self, address: str, stream: Stream[ServerMessage], welcome: Welcome) -> None:
        self.address = address
        self.welcome = welcome
        self._stream = stream
        self._mailboxes: dict[int, Mailbox] = {}
        self._budget = Budget()
        self._last_request_id = 0
        self._broken: SdqError | None = None
        self._clock = asyncio.get_running_loop().time
        self._opened_at = self._last_sent = self._clock()
        self._tasks = [
            asyncio.create_task(self._read(), name="sdq client: read"),
            asyncio.create_task(self._keep_alive(), name="sdq client: keep alive"),
        ]

    @classmethod
    async def open(cls, host: str, port: int, *, timeout_seconds: float) -> "Line":
        """Connects and shakes hands, in ``timeout_seconds`` together. Safe to cancel.

        Raises `ConnectionFailed`, or `ProtocolMismatch` when something else answers there.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            async with asyncio.timeout(timeout_seconds):
                reader, writer = await asyncio.open_connection(host, port, limit=READ_CHUNK_BYTES)
                stream = Stream(ClientConnection(), reader, writer)
                try:
                    welcome = await _shake_hands(address, stream)
                except BaseException:  # a cancel too must not leave the socket; raised again
                    stream.abort()
                    await stream.close()
                    raise
        except TimeoutError as error:
            raise ConnectionFailed(
                f"no answer from {address} within {timeout_seconds:g} s", hint=IS_IT_RUNNING
            ) from error
        except OSError as error:
            raise ConnectionFailed(
                f"cannot reach {address}: {_reason(error)}", hint=IS_IT_RUNNING
            ) from error
        return cls(address, stream, welcome)

    @property
    def broken(self) -> SdqError | None:
        """Why nothing can be asked any more."""
        return self._broken

    @property
    def requests_in_flight(self) -> int:
        return len(self._mailboxes)

    @property
    def age_seconds(self) -> float:
        """Since the greeting."""
        return self._clock() - self._opened_at

    def new_mailbox(self) -> Mailbox:
        """One for replies of this line. Whoever asked for it closes it."""
        return Mailbox(self._budget)

    def begin(
        self, build: Callable[[int], msgspec.Struct], mailbox: Mailbox, *, is_free: bool = False
    ) -> int:
        """Sends the request that ``build`` makes of a new request id; its replies follow in
        the mailbox, until `forget`. Several requests may share one.

        ``is_free``: a message that ends others, which is sent even when there is no room left.
        Raises `ConnectionFailed`, and `ServerBusy` where the server's limit is reached.
        """
        limit = self.welcome.limits.max_requests_in_flight
        if self.requests_in_flight >= limit and not is_free:
            raise ServerBusy(
                f"{limit} requests are under way on this connection, and that is its limit",
                hint="finish or leave some of them first",
            )
        request_id = self._last_request_id + 1
        self.send(build(request_id))
        self._last_request_id = request_id
        self._mailboxes[request_id] = mailbox
        return request_id

    def send(self, message: msgspec.Struct) -> None:
        """Puts a message into the bounded outbox. Raises `ConnectionFailed`."""
        if self._broken is not None:
            raise self._broken
        try:
            self._stream.send(message)
        except ConnectionFailed as error:
            # The writing end may know it before the reading one: all who ask are told the same.
            self._break(self._lost(error.message))
            raise self._lost(error.message) from error
        self._last_sent = self._clock()

    def forget(self, request_id: int) -> None:
        """Later replies to this request are dropped."""
        self._mailboxes.pop(request_id, None)

    def abort(self) -> None:
        """Cuts the connection: what waits to be sent is lost. `close` is still needed."""
        self._stream.abort()

    async def close(self) -> None:
        """Sends what waits and ends both tasks. What is still asked gets `ConnectionFailed`."""
        self._break(ConnectionFailed("this connection was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stream.close()

    async def _read(self) -> None:
        silence_seconds = self.welcome.limits.idle_timeout_seconds
        try:
            while event := await self._stream.receive(silence_seconds):
                self._handle(event)
            error: SdqError = self._lost("the server hung up")
        except TimeoutError:
            error = self._lost(f"the server was silent for {silence_seconds:g} s")
        except ConnectionFailed as failure:
            error = self._lost(failure.message)
        except SdqError as failure:
            error = failure
        self._break(error)

    def _handle(self, event: ServerMessage | ProtocolError) -> None:
        """Raises the error that ends the connection, if it is one."""
        if isinstance(event, InvalidMessage):
            # A newer server may say things that we do not know; only a request that can no
            # longer be answered is told.
            if mailbox := self._mailboxes.get(event.request_id or -1):
                mailbox.fail(ProtocolError(f"the server's reply makes no sense: {event}"))
        elif isinstance(event, ProtocolError):
            raise event
        elif isinstance(event, Ping):
            self.send(Pong(number=event.number))
        elif isinstance(event, ErrorReply) and event.request_id is None:
            raise from_code(event.code, event.message, event.hint)
        elif not isinstance(event, Welcome | Pong) and (
            mailbox := self._mailboxes.get(-1 if event.request_id is None else event.request_id)
        ):
            mailbox.put(event)

    async def _keep_alive(self) -> None:
        """Speaks when nothing else was said, so that the server hears us in time."""
        limit_seconds = self.welcome.limits.idle_timeout_seconds
        interval_seconds = min(PING_INTERVAL_SECONDS, limit_seconds / 3)
        number = 0
        while self._broken is None:
            quiet_seconds = self._clock() - self._last_sent
            if quiet_seconds < interval_seconds:
                await asyncio.sleep(interval_seconds - quiet_seconds)
                continue
            number += 1
            with suppress(SdqError):
                self.send(Ping(number=number))

    def _lost(self, reason: str) -> ConnectionFailed:
        return ConnectionFailed(f"lost the server at {self.address}: {reason}", hint=RUN_AGAIN)

    def _break(self, error: SdqError) -> None:
        if self._broken is None:
            self._broken = error
        for mailbox in self._mailboxes.values():
            mailbox.fail(self._broken)


async def _shake_hands(address: str, stream: Stream[ServerMessage]) -> Welcome:
    connection = stream.connection
    assert isinstance(connection, ClientConnection)
    stream.send_bytes(connection.hello(CLIENT_NAME))
    try:
        answer = await stream.receive()
    except ConnectionFailed:
        answer = None
    if isinstance(answer, Welcome):
        return answer
    if isinstance(answer, ErrorReply):
        raise from_code(answer.code, f"{address}: {answer.message}", answer.hint)
    if isinstance(answer, VersionMismatch):
        raise ProtocolMismatch(f"{address}: {answer.message}", hint=answer.hint)
    if isinstance(answer, ProtocolError):
        raise ProtocolMismatch(f"{address} is no sdq server: {answer.message}", hint=WRONG_PORT)
    raise HungUp(f"{address} is no sdq server: it hung up at the greeting", hint=WRONG_PORT)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    # asyncio joins the failures of several addresses into one text without a number.
    return error.strerror or ("nothing listens there" if "refused" in str(error) else str(error))
