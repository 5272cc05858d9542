"""Client and server joined in memory: greeting, versions, errors as events, the end."""

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdq.errors import (
    FrameTooLarge,
    InvalidMessage,
    LocalProtocolError,
    ProtocolError,
    ProtocolMismatch,
    from_code,
)
from sdq.protocol.connection import (
    ClientConnection,
    ConnectionState,
    ServerConnection,
    VersionMismatch,
)
from sdq.protocol.constants import MAX_ERROR_CHARACTERS, PROTOCOL_VERSION
from sdq.protocol.framing import frame
from sdq.protocol.messages import (
    Cancel,
    ErrorReply,
    Generate,
    Hello,
    Limits,
    ListModels,
    Ping,
    Pong,
    Welcome,
)
from sdq.spec import SpecDraft

LIMITS = Limits(
    max_request_bytes=10_000,
    max_reply_bytes=20_000,
    max_prompt_characters=2_000,
    max_count=10,
    max_requests_in_flight=5,
    idle_timeout_seconds=60.0,
)


def raw(plain: Any) -> bytes:
    return frame(msgpack.packb(plain), 2**31)


def bytes_of(message: msgspec.Struct) -> bytes:
    return raw(msgspec.to_builtins(message))


@pytest.fixture
def server() -> ServerConnection:
    return ServerConnection(LIMITS)


@pytest.fixture
def client() -> ClientConnection:
    return ClientConnection()


def greet(client: ClientConnection, server: ServerConnection) -> None:
    server.receive(client.hello("test"))
    client.receive(server.welcome("test"))


def test_the_greeting(client: ClientConnection, server: ServerConnection) -> None:
    assert server.receive(client.hello("sdq 0.1")) == [
        Hello(PROTOCOL_VERSION, PROTOCOL_VERSION, "sdq 0.1")
    ]
    welcome = Welcome(PROTOCOL_VERSION, "sdq 0.1", LIMITS)
    assert client.receive(server.welcome("sdq 0.1")) == [welcome]
    assert client.state is server.state is ConnectionState.OPEN
    assert client.welcome == welcome
    assert client.send_limit_bytes == LIMITS.max_request_bytes


def test_both_ways_and_many_at_once(client: ClientConnection, server: ServerConnection) -> None:
    greet(client, server)
    requests = [Generate(1, SpecDraft("a")), Cancel(2, 1), ListModels(3), Ping(4)]
    assert server.receive(b"".join(client.send(request) for request in requests)) == requests
    replies = [Pong(4), ErrorReply(1, "busy", "later")]
    assert client.receive(b"".join(server.send(reply) for reply in replies)) == replies


def test_requests_may_follow_hello_without_waiting(
    client: ClientConnection, server: ServerConnection
) -> None:
    together = client.hello("hasty") + client.send(Ping(1)) + client.send(ListModels(2))
    hello, *rest = server.receive(together)
    assert isinstance(hello, Hello)
    assert rest == [Ping(1), ListModels(2)]
    assert client.receive(server.welcome("s"))[0] == client.welcome


@pytest.mark.parametrize(
    ("oldest", "newest"), [(PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 3), (2**40, 2**40)]
)
def test_a_client_that_is_too_new(server: ServerConnection, oldest: int, newest: int) -> None:
    [error] = server.receive(bytes_of(Hello(oldest, newest)))
    assert isinstance(error, VersionMismatch)
    assert server.state is ConnectionState.CLOSED
    refusal = server.refuse(ErrorReply(None, error.code, error.message, error.hint))
    [reply] = ClientConnection().receive(refusal)
    assert isinstance(reply, ErrorReply)
    arrived = from_code(reply.code, reply.message, reply.hint)
    assert type(arrived) is ProtocolMismatch
    assert arrived.exit_code == 3
    assert str(oldest) in arrived.message


def test_a_range_that_holds_our_version_is_welcome(server: ServerConnection) -> None:
    assert server.receive(bytes_of(Hello(1, PROTOCOL_VERSION + 5))) == [
        Hello(1, PROTOCOL_VERSION + 5)
    ]


@pytest.mark.parametrize("protocol", [0, PROTOCOL_VERSION + 1, -1])
def test_a_server_that_answers_another_version(client: ClientConnection, protocol: int) -> None:
    [error] = client.receive(bytes_of(Welcome(protocol, "s", LIMITS)))
    assert isinstance(error, VersionMismatch)
    assert f"the server {protocol}" in error.message
    assert client.state is ConnectionState.CLOSED


@pytest.mark.parametrize(
    "first",
    [{"type": "ping", "number": 1}, {"type": "nonsense"}, "text", {"type": "hello"}],
)
def test_the_first_message_must_be_hello(server: ServerConnection, first: Any) -> None:
    events = server.receive(raw(first) + bytes_of(Hello(1, 1)))
    assert len(events) == 1  # what follows the error is not looked at
    assert isinstance(events[0], ProtocolError)
    assert not isinstance(events[0], InvalidMessage)
    assert "Hello" in events[0].message
    assert server.state is ConnectionState.CLOSED
    assert server.receive(bytes_of(Hello(1, 1))) == []


@pytest.mark.parametrize("first", [{"type": "pong"}, {"type": "nonsense"}, 7])
def test_the_servers_first_message_must_be_welcome(client: ClientConnection, first: Any) -> None:
    [error] = client.receive(raw(first))
    assert isinstance(error, ProtocolError)
    assert "Welcome" in error.message
    assert client.state is ConnectionState.CLOSED


def test_a_refusal_instead_of_welcome_is_an_event(client: ClientConnection) -> None:
    refusal = ErrorReply(None, "busy", "no connection left")
    assert client.receive(bytes_of(refusal)) == [refusal]
    assert client.receive_end() is None


def test_an_invalid_message_is_an_event_and_the_connection_lives(
    client: ClientConnection, server: ServerConnection
) -> None:
    greet(client, server)
    bad = raw({"type": "cancel", "request_id": 9, "target": "x"})
    unknown = raw({"type": "paint", "request_id": 10})
    first, second, third = server.receive(bad + unknown + client.send(Ping(1)))
    assert isinstance(first, InvalidMessage)
    assert first.request_id == 9
    assert "$.target" in first.message
    assert isinstance(second, InvalidMessage)
    assert second.request_id == 10
    assert third == Ping(1)
    assert server.state is ConnectionState.OPEN
    assert client.receive(server.send(Pong(1))) == [Pong(1)]


def test_an_invalid_message_does_not_keep_its_payload(
    client: ClientConnection, server: ServerConnection
) -> None:
    greet(client, server)
    [event] = server.receive(raw({"type": "cancel", "request_id": 9, "target": "x" * 9_000}))
    assert isinstance(event, InvalidMessage)
    assert event.__traceback__ is None


def test_a_second_greeting_is_invalid(client: ClientConnection, server: ServerConnection) -> None:
    greet(client, server)
    [hello] = server.receive(bytes_of(Hello(1, 1)))
    [welcome] = client.receive(bytes_of(Welcome(1, "s", LIMITS)))
    assert isinstance(hello, InvalidMessage)
    assert isinstance(welcome, InvalidMessage)
    assert client.state is server.state is ConnectionState.OPEN


def test_frames_before_one_over_the_limit_come_first(
    client: ClientConnection, server: ServerConnection
) -> None:
    greet(client, server)
    too_large = (LIMITS.max_request_bytes + 1).to_bytes(4, "big")
    events = server.receive(client.send(Ping(1)) + too_large + b"xxxx")
    assert events[0] == Ping(1)
    assert isinstance(events[1], FrameTooLarge)
    assert len(events) == 2
    assert server.state is ConnectionState.CLOSED
    assert server.receive_end() is None


def test_http_is_named(server: ServerConnection) -> None:
    [error] = server.receive(b"GET / HTTP/1.1\r\nHost: gpu-box:7433\r\n\r\n")
    assert isinstance(error, FrameTooLarge)
    assert error.foreign == "HTTP"


def test_the_end_between_frames_and_inside_one(
    client: ClientConnection, server: ServerConnection
) -> None:
    greet(client, server)
    assert client.receive_end() is None
    server.receive(bytes_of(Ping(1))[:-1])
    error = server.receive_end()
    assert isinstance(error, ProtocolError)
    assert "in the middle" in error.message
    assert server.receive_end() is None
    assert server.state is client.state is ConnectionState.CLOSED


def test_sending_after_the_end_is_our_defect(client: ClientConnection) -> None:
    client.receive_end()
    with pytest.raises(LocalProtocolError, match="closed"):
        client.send(Ping(1))


def test_sending_over_the_servers_limit(client: ClientConnection, server: ServerConnection) -> None:
    greet(client, server)
    with pytest.raises(LocalProtocolError, match="10000 bytes"):
        client.send(Generate(1, SpecDraft("x" * 10_000)))
    assert client.state is ConnectionState.OPEN
    assert server.receive(client.send(Ping(1))) == [Ping(1)]


def test_a_refusal_can_always_be_sent(server: ServerConnection) -> None:
    server.receive_end()
    reply = ErrorReply(None, "error", "cannot read caf\udce9 " + "x" * 50_000, "hint")
    [arrived] = ClientConnection().receive(server.refuse(reply))
    assert isinstance(arrived, ErrorReply)
    assert arrived.message.startswith("cannot read caf? xx")
    assert len(arrived.message) == MAX_ERROR_CHARACTERS


@given(cuts=st.lists(st.integers(0, 400), max_size=10))
def test_any_cutting_of_the_stream_gives_the_same_events(cuts: list[int]) -> None:
    client, whole = ClientConnection(), ServerConnection(LIMITS)
    data = client.hello("c") + client.send(Ping(1)) + raw({"type": "?"}) + client.send(Cancel(1, 2))
    expected = [str(event) for event in whole.receive(data)]
    pieces = ServerConnection(LIMITS)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    events = []
    for start, end in zip(places, places[1:], strict=False):  # noqa: RUF007
        events += pieces.receive(data[start:end])
    assert [str(event) for event in events] == expected
    assert len(events) == 4


@given(st.binary(max_size=300))
def test_no_bytes_make_receive_raise(data: bytes) -> None:
    for connection in (ServerConnection(LIMITS), ClientConnection()):
        connection.receive(data)
        connection.receive_end()
    client, server = ClientConnection(), ServerConnection(LIMITS)
    greet(client, server)
    server.receive(frame(data, 1_000))
    client.receive(frame(data, 1_000))
    assert client.state is server.state is ConnectionState.OPEN
