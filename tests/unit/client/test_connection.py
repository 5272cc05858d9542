"""The connection, over real sockets: greetings good and bad, silence, breaks, crossed replies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from sdq.client.connection import Line
from sdq.errors import ConnectionFailed, ProtocolError, ProtocolMismatch, SdqError
from sdq.protocol.codec import encode
from sdq.protocol.framing import frame
from sdq.protocol.messages import (
    ClientMessage,
    ErrorReply,
    GetStatus,
    ListModels,
    Models,
    Ping,
    Pong,
    Welcome,
)
from sdq.testing.transport import LIMITS, ScriptedPeer, ScriptedServer, stays_silent

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def foreign(talk: Talk) -> AsyncIterator[int]:
    """Something that listens and is no sdq server; its port."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait_for(ended.wait(), 5)
    finally:
        server.close()
        await server.wait_closed()


def says(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()  # as HTTP and Redis do
        writer.write(answer)
        await writer.drain()

    return talk


async def open_to(address: str, timeout_seconds: float = 5) -> Line:
    host, _, port = address.rpartition(":")
    return await Line.open(host, int(port), timeout_seconds=timeout_seconds)


async def test_nothing_listens(free_port: int) -> None:
    with pytest.raises(ConnectionFailed, match=r"cannot reach .*: nothing listens there") as caught:
        await open_to(f"127.0.0.1:{free_port}")
    assert "sdq up" in caught.value.hint
    assert "--server" in caught.value.hint


async def test_no_such_host() -> None:
    with pytest.raises(ConnectionFailed, match="no such host"):
        await open_to("does-not-exist.invalid:7433")


async def test_a_port_that_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with foreign(silent) as port:
        with pytest.raises(ConnectionFailed, match=r"no answer from .* within 0\.2 s"):
            await open_to(f"127.0.0.1:{port}", timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 400 Bad request\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9\r\n", "SSH"),
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"-ERR unknown command\r\n", "Redis"),
        (b"<!DOCTYPE HTML>", "no sdq server"),
        (b"\x00\x00\x00\x03abc", "no sdq server"),
        (b"", "hung up"),
    ],
)
async def test_something_else_listens(answer: bytes, expected: str) -> None:
    async with foreign(says(answer)) as port:
        with pytest.raises(ProtocolMismatch, match=expected) as caught:
            await open_to(f"127.0.0.1:{port}")
    assert "port" in caught.value.hint


async def test_a_newer_server() -> None:
    welcome = Welcome(protocol=9, server="newer", limits=LIMITS)
    async with foreign(says(frame(encode(welcome), 10_000))) as port:
        with pytest.raises(ProtocolMismatch, match="9") as caught:
            await open_to(f"127.0.0.1:{port}")
    assert "same version" in caught.value.hint


async def test_a_server_that_refuses_our_version() -> None:
    refusal = ErrorReply(None, "protocol_mismatch", "this server speaks 2 to 3", "get a newer one")
    async with foreign(says(frame(encode(refusal), 10_000))) as port:
        with pytest.raises(ProtocolMismatch, match="2 to 3") as caught:
            await open_to(f"127.0.0.1:{port}")
    assert caught.value.hint == "get a newer one"


async def test_replies_find_their_requests() -> None:
    waiting: list[int] = []

    async def backwards(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, ListModels)
        waiting.append(message.request_id)
        if len(waiting) == 3:
            for request_id in reversed(waiting):
                peer.send(Models(request_id, ()))

    async with ScriptedServer(backwards) as server:
        line = await open_to(server.address)
        mailboxes = [line.new_mailbox() for _ in range(3)]
        for number, mailbox in enumerate(mailboxes, start=1):
            assert line.begin(lambda request_id: ListModels(request_id), mailbox) == number
        for number, mailbox in enumerate(mailboxes, start=1):
            assert await mailbox.get() == Models(number, ())
        await line.close()


async def test_every_waiting_request_hears_that_the_line_broke() -> None:
    async def hang_up(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, GetStatus):
            peer.hang_up()

    async with ScriptedServer(hang_up) as server:
        line = await open_to(server.address)
        mailboxes = [line.new_mailbox() for _ in range(3)]
        for mailbox in mailboxes:
            line.begin(lambda request_id: ListModels(request_id), mailbox)
        line.begin(lambda request_id: GetStatus(request_id), line.new_mailbox())
        for mailbox in mailboxes:
            with pytest.raises(ConnectionFailed, match="lost the server at") as caught:
                await mailbox.get()
            assert "again" in caught.value.hint
        with pytest.raises(ConnectionFailed):
            line.begin(lambda request_id: ListModels(request_id), line.new_mailbox())
        await line.close()


async def test_silence_is_noticed() -> None:
    deaf = msgspec.structs.replace(LIMITS, idle_timeout_seconds=0.2)
    welcome = frame(encode(Welcome(protocol=1, server="deaf", limits=deaf)), 10_000)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(welcome)
        await reader.read()  # pings too stay without an answer

    async with foreign(talk) as port:
        line = await open_to(f"127.0.0.1:{port}")
        mailbox = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), mailbox)
        with pytest.raises(ConnectionFailed, match=r"silent for 0\.2 s"):
            await mailbox.get()
        await line.close()


async def test_pings_keep_a_quiet_line_alive() -> None:
    limits = msgspec.structs.replace(LIMITS, idle_timeout_seconds=0.15)
    async with ScriptedServer(stays_silent(), limits=limits) as server:
        line = await open_to(server.address)
        mailbox = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), mailbox)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(mailbox.get(), 0.6)
        assert len(server.heard_of(Ping)) >= 3
        await line.close()


async def test_the_server_may_ping_us() -> None:
    async def ping_first(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, ListModels)
        peer.send(Ping(number=77))
        peer.send(Models(message.request_id, ()))

    async with ScriptedServer(ping_first) as server:
        line = await open_to(server.address)
        mailbox = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), mailbox)
        await mailbox.get()
        await line.close()
        await server.heard_enough(lambda: Pong(77) in server.heard)


async def test_a_reply_that_makes_no_sense_ends_only_its_request() -> None:
    class Nonsense(msgspec.Struct, tag_field="type", tag="models"):
        request_id: int
        models: int = 5

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, ListModels)
        peer.send(Nonsense(message.request_id) if message.request_id == 1 else Models(2, ()))

    async with ScriptedServer(handle) as server:
        line = await open_to(server.address)
        first = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), first)
        with pytest.raises(ProtocolError, match="makes no sense"):
            await first.get()
        second = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), second)
        assert await second.get() == Models(2, ())
        await line.close()


async def test_an_error_about_the_connection_is_everybodys_error() -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        peer.send(ErrorReply(None, "not_allowed", "your token was withdrawn"))

    async with ScriptedServer(handle) as server:
        line = await open_to(server.address)
        mailbox = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), mailbox)
        with pytest.raises(SdqError, match="token") as caught:
            await mailbox.get()
        assert caught.value.code == "not_allowed"
        await line.close()


async def test_closing_tells_who_still_waits() -> None:
    async with ScriptedServer(stays_silent()) as server:
        line = await open_to(server.address)
        mailbox = line.new_mailbox()
        line.begin(lambda request_id: ListModels(request_id), mailbox)
        await line.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            await mailbox.get()
