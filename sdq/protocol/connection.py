"""One connection as a state machine: bytes in, events out; messages in, bytes out.

No sockets and no clocks here. ``stream.py`` moves the bytes; the tests join a client and a
server in memory.
"""

from enum import Enum
from typing import Generic, TypeVar

import msgspec

from sdq.errors import InvalidMessage, LocalProtocolError, ProtocolError, ProtocolMismatch
from sdq.protocol.codec import decode, encode
from sdq.protocol.constants import (
    MAX_ERROR_CHARACTERS,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
)
from sdq.protocol.framing import FrameDecoder, frame
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
    kind is the last event, and the connection is closed. Before the greeting is through,
    an invalid message closes too: the peer may be anything.
    """

    _incoming: type[Incoming]

    def __init__(self, receive_limit_bytes: int, send_limit_bytes: int) -> None:
        self.state = ConnectionState.GREETING
        self.send_limit_bytes = send_limit_bytes
        self._decoder = FrameDecoder(receive_limit_bytes)
        self._greeted = False  # the peer's first message was what it must be

    def receive(self, data: bytes) -> list[Incoming | ProtocolError]:
        """The events in the next bytes of the stream; none once it is closed."""
        if self.state is ConnectionState.CLOSED:
            return []
        events: list[Incoming | ProtocolError] = []
        for payload in self._decoder.feed(data):
            events.append(self._event(payload))
            if self._is_closed:
                return events
        if self._decoder.error is not None:
            events.append(self._close(self._decoder.error))
        return events

    def receive_end(self) -> ProtocolError | None:
        """The stream ended; an error when that cut a frame."""
        whole = self._decoder.is_between_frames
        before, self.state = self.state, ConnectionState.CLOSED
        if whole or before is ConnectionState.CLOSED:
            return None
        return ProtocolError("the connection ended in the middle of a message")

    def send(self, message: msgspec.Struct) -> bytes:
        """The bytes of a message.

        Raises `LocalProtocolError` when it is over the limit or the connection is closed, and
        `UsageError` for text and numbers that msgpack cannot carry.
        """
        if self.state is ConnectionState.CLOSED:
            raise LocalProtocolError("the connection is closed")
        return frame(encode(message), self.send_limit_bytes)

    def refuse(self, reply: ErrorReply) -> bytes:
        """The bytes of an error reply; also after the error that closed this connection.

        Never raises: a very long text is cut, and text that cannot be sent (a file name, say)
        goes out with question marks.
        """
        clean = {name: _sendable(getattr(reply, name)) for name in ("code", "message", "hint")}
        return frame(encode(msgspec.structs.replace(reply, **clean)), self.send_limit_bytes)

    @property
    def _is_closed(self) -> bool:
        return self.state is ConnectionState.CLOSED

    def _close(self, error: ProtocolError) -> ProtocolError:
        self.state = ConnectionState.CLOSED
        return error

    def _event(self, payload: bytes) -> Incoming | ProtocolError:
        try:
            message = decode(payload, self._incoming)
        except InvalidMessage as error:
            # Without its traceback an event does not keep the payload and its values alive.
            invalid = error.with_traceback(None)
        else:
            return self._check(message) if self._greeted else self._greet(message)
        return invalid if self._greeted else self._close(self._not_greeted(str(invalid)))

    def _greet(self, message: Incoming) -> Incoming | ProtocolError:
        """The peer's first message."""
        raise NotImplementedError

    def _not_greeted(self, reason: str) -> ProtocolError:
        """The error when the first message is something else."""
        raise NotImplementedError

    def _check(self, message: Incoming) -> Incoming | ProtocolError:
        """Any later message."""
        raise NotImplementedError


def _sendable(text: str) -> str:
    return text[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode()


class ServerConnection(Connection[ClientMessage]):
    """The server's end: the first message must be a `Hello` that it can agree with.

    Requests that come in the same breath as `Hello` are events after it; answer the `Hello`
    with `welcome` first.
    """

    _incoming = ClientMessage  # type: ignore[assignment]

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits.max_request_bytes, limits.max_reply_bytes)
        self.limits = limits

    def welcome(self, server: str) -> bytes:
        """The bytes that open the connection."""
        self.state = ConnectionState.OPEN
        protocol = PROTOCOL_VERSION
        return self.send(Welcome(protocol=protocol, server=server, limits=self.limits))

    def _greet(self, message: ClientMessage) -> ClientMessage | ProtocolError:
        if not isinstance(message, Hello):
            return self._close(self._not_greeted(""))
        if not message.oldest_protocol <= PROTOCOL_VERSION <= message.newest_protocol:
            return self._close(
                VersionMismatch("client", message.oldest_protocol, message.newest_protocol)
            )
        self._greeted = True
        return message

    def _not_greeted(self, reason: str) -> ProtocolError:
        return ProtocolError(
            "the first message must be Hello" + (f": {reason}" if reason else ""),
            hint="docs/protocol.md shows a first exchange",
        )

    def _check(self, message: ClientMessage) -> ClientMessage | ProtocolError:
        if isinstance(message, Hello):
            return InvalidMessage("Hello is only for the beginning of a connection")
        return message


class VersionMismatch(ProtocolError):
    """The two ends have no version of the protocol in common."""

    code = ProtocolMismatch.code

    def __init__(self, peer: str, oldest: int, newest: int) -> None:
        super().__init__(
            f"this side speaks protocol {_range(OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION)}, "
            f"the {peer} {_range(oldest, newest)}",
            hint="install the same version of sdq on both sides",
        )


def _range(oldest: int, newest: int) -> str:
    return f"{oldest}" if oldest == newest else f"{oldest} to {newest}"


class ClientConnection(Connection[ServerMessage]):
    """The client's end: takes the server's limits from its `Welcome`.

    An `ErrorReply` instead of `Welcome` is an event too: the server refuses and hangs up.
    """

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

    def _greet(self, message: ServerMessage) -> ServerMessage | ProtocolError:
        if isinstance(message, ErrorReply):
            return message
        if not isinstance(message, Welcome):
            return self._close(self._not_greeted(""))
        if not OLDEST_PROTOCOL_VERSION <= message.protocol <= PROTOCOL_VERSION:
            return self._close(VersionMismatch("server", message.protocol, message.protocol))
        self._greeted = True
        self.state = ConnectionState.OPEN
        self.welcome = message
        self.send_limit_bytes = min(self.send_limit_bytes, message.limits.max_request_bytes)
        return message

    def _not_greeted(self, reason: str) -> ProtocolError:
        return ProtocolError(
            "the server's first message must be Welcome" + (f": {reason}" if reason else ""),
            hint="check the address and the port; an sdq server is started by `sdq server`",
        )

    def _check(self, message: ServerMessage) -> ServerMessage | ProtocolError:
        if isinstance(message, Welcome):
            return InvalidMessage("Welcome is only for the beginning of a connection")
        return message
