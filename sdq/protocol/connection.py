"""One connection as a state machine: bytes in, events out; messages in, bytes out.

No sockets and no clocks here. ``stream.py`` moves the bytes; the tests join a client and a
server in memory.
"""

from enum import Enum
from typing import Generic, TypeVar

import msgspec

from sdq.errors import LocalProtocolError, ProtocolError, ProtocolMismatch
from sdq.protocol.codec import InvalidMessage, decode, encode
from sdq.protocol.constants import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
)
from sdq.protocol.framing import FrameDecoder, FrameTooLarge, frame
from sdq.protocol.messages import (
    ClientMessage,
    ErrorReply,
    Hello,
    Limits,
    ServerMessage,
    Welcome,
)

Incoming = TypeVar("Incoming")


class ConnectionState(Enum):
    GREETING = "greeting"  # Hello and Welcome are not through yet
    OPEN = "open"
    CLOSED = "closed"  # an error that cannot be mended, or the end


class Connection(Generic[Incoming]):
    """What both ends share. ``receive`` never raises for what a peer may send in error:

    an `InvalidMessage` is an event, and the connection lives; a `ProtocolError` of any other
    kind is the last event, and the connection is closed.
    """

    _incoming: type[Incoming]

    def __init__(self, receive_limit_bytes: int, send_limit_bytes: int) -> None:
        self.state = ConnectionState.GREETING
        self.send_limit_bytes = send_limit_bytes
        self._decoder = FrameDecoder(receive_limit_bytes)

    def receive(self, data: bytes) -> list[Incoming | ProtocolError]:
        """The events in the next bytes of the stream."""
        if self.state is ConnectionState.CLOSED:
            return []
        try:
            payloads = self._decoder.feed(data)
        except FrameTooLarge as error:
            self.state = ConnectionState.CLOSED
            return [error]
        return [self._event(payload) for payload in payloads]

    def receive_end(self) -> ProtocolError | None:
        """The stream ended; an error when that cut a frame."""
        whole = self._decoder.is_between_frames
        closed, self.state = self.state, ConnectionState.CLOSED
        if whole or closed is ConnectionState.CLOSED:
            return None
        return ProtocolError("the connection ended in the middle of a message")

    def send(self, message: msgspec.Struct) -> bytes:
        """The bytes of a message. Raises `LocalProtocolError` when it is over the limit."""
        if self.state is ConnectionState.CLOSED:
            raise LocalProtocolError("the connection is closed")
        return frame(encode(message), self.send_limit_bytes)

    def _event(self, payload: bytes) -> Incoming | ProtocolError:
        try:
            message = decode(payload, self._incoming)
        except InvalidMessage as error:
            return error
        return self._check(message)

    def _check(self, message: Incoming) -> Incoming | ProtocolError:
        return message


class ServerConnection(Connection[ClientMessage]):
    """The server's end: the first message must be a `Hello` that it can agree with."""

    _incoming = ClientMessage  # type: ignore[assignment]

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits.max_request_bytes, limits.max_reply_bytes)
        self.limits = limits

    def welcome(self, server: str) -> bytes:
        """The bytes that open the connection."""
        self.state = ConnectionState.OPEN
        protocol = PROTOCOL_VERSION
        return self.send(Welcome(protocol=protocol, server=server, limits=self.limits))

    def _check(self, message: ClientMessage) -> ClientMessage | ProtocolError:
        if self.state is ConnectionState.OPEN:
            if isinstance(message, Hello):
                return InvalidMessage("Hello is only for the beginning of a connection")
            return message
        if not isinstance(message, Hello):
            self.state = ConnectionState.CLOSED
            return ProtocolError(
                "the first message must be Hello", hint="docs/protocol.md shows a first exchange"
            )
        if not message.oldest_protocol <= PROTOCOL_VERSION <= message.newest_protocol:
            self.state = ConnectionState.CLOSED
            return VersionMismatch(message)
        return message


class VersionMismatch(ProtocolError):
    """The client speaks none of our versions."""

    code = ProtocolMismatch.code

    def __init__(self, hello: Hello) -> None:
        super().__init__(
            f"this server speaks protocol {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}, "
            f"the client {hello.oldest_protocol} to {hello.newest_protocol}",
            hint="install the same version of sdq on both sides",
        )


class ClientConnection(Connection[ServerMessage]):
    """The client's end: takes the server's limits from its `Welcome`."""

    _incoming = ServerMessage  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(MAX_REPLY_BYTES, MAX_REQUEST_BYTES)
        self.welcome: Welcome | None = None

    def hello(self, client: str) -> bytes:
        """The bytes that a client begins with."""
        return self.send(
            Hello(
                oldest_protocol=OLDEST_PROTOCOL_VERSION,
                newest_protocol=PROTOCOL_VERSION,
                client=client,
            )
        )

    def _check(self, message: ServerMessage) -> ServerMessage | ProtocolError:
        if self.state is ConnectionState.OPEN:
            return message
        if isinstance(message, Welcome):
            self.state = ConnectionState.OPEN
            self.welcome = message
            self.send_limit_bytes = min(self.send_limit_bytes, message.limits.max_request_bytes)
        elif not isinstance(message, ErrorReply):
            self.state = ConnectionState.CLOSED
            return ProtocolError("the server's first message must be Welcome")
        return message
