"""What a server does with peers that are wrong, rude, slow or many. Raw sockets."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from sdq.config import Settings
from sdq.protocol.constants import MAX_REQUEST_BYTES
from sdq.server.outboxes import Outboxes
from sdq.server.server import Server
from sdq.testing.raw import HELLO, RawClient


@pytest.fixture
async def server(settings: Settings, redis_url: str):
    server = await Server.start(settings, redis_url=redis_url)
    yield server
    await server.close()


@pytest.fixture
async def connect(server: Server):
    lines: list[RawClient] = []

    async def connect() -> RawClient:
        line = await RawClient.connect(server.port)
        lines.append(line)
        return line

    yield connect
    for line in lines:
        await line.close()


@pytest.fixture
async def greeted(connect) -> RawClient:
    line = await connect()
    line.send(HELLO)
    assert (await line.read())["type"] == "welcome"
    return line


async def test_welcome_announces_the_limits(connect):
    line = await connect()
    line.send(HELLO)
    welcome = await line.read()
    assert welcome["protocol"] == 1
    assert welcome["limits"]["max_request_bytes"] == MAX_REQUEST_BYTES
    assert welcome["limits"]["max_prompt_characters"] == 2_000


async def test_another_version_is_told_ours_and_the_line_closed(connect):
    line = await connect()
    line.send(HELLO | {"oldest_protocol": 7, "newest_protocol": 9})
    error = await line.read()
    assert (error["type"], error["code"]) == ("errorreply", "protocol_mismatch")
    assert "7" in error["message"]
    assert await line.is_closed()


async def test_another_protocol_gets_an_answer_and_the_door(connect):
    line = await connect()
    line.writer.write(b"\x16\x03\x01\x02\x00\x01")
    error = await line.read()
    assert error["type"] == "errorreply"
    assert "TLS, not the sdq protocol" in error["message"]
    assert await line.is_closed()


async def test_a_browser_is_answered_so_that_it_can_be_read(connect):
    line = await connect()
    line.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        answer = (await line.reader.read()).decode()
    assert answer.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert "the other side speaks HTTP, not the sdq protocol" in answer
    assert await line.is_closed()


async def test_a_request_before_hello_is_refused(connect):
    line = await connect()
    line.send({"type": "getstatus", "request_id": 1})
    assert "Hello" in (await line.read())["message"]
    assert await line.is_closed()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"type": "dance", "request_id": 5}, "dance"),
        ({"type": "generate", "request_id": 5}, "draft"),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": 3}}, "draft.prompt"),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": "x", "width": 1}}, "width"),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": "  "}}, "prompt"),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": "x" * 2_001}}, "2000"),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": "x", "width": 100}}, "8"),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": "x", "width": 4096}}, "256"),
        (
            {"type": "generate", "request_id": 5, "draft": {"prompt": "x", "model": "shap"}},
            "shapes",
        ),
        (
            {"type": "generate", "request_id": 5, "draft": {"prompt": "x", "scheduler": "eular"}},
            "euler",
        ),
        ({"type": "generate", "request_id": 5, "draft": {"prompt": "x"}, "count": 101}, "100"),
        ({"type": "fetchpicture", "request_id": 5, "key": "../../etc"}, "key"),
        ([1, 2, 3], ""),
    ],
)
async def test_a_bad_message_gets_an_error_and_the_line_lives(
    greeted: RawClient, message, words: str
):
    greeted.send(message)
    error = await greeted.read()
    assert error["type"] == "errorreply"
    assert error["request_id"] == (5 if isinstance(message, dict) else None)
    assert words in f"{error['message']} {error['hint']}"
    greeted.send({"type": "ping", "number": 8})
    assert await greeted.read() == {"type": "pong", "number": 8}


async def test_bytes_that_are_no_msgpack_get_an_error_and_the_line_lives(greeted: RawClient):
    greeted.writer.write(struct.pack(">I", 3) + b"\xc1\xc1\xc1")
    assert (await greeted.read())["code"] == "invalid_message"
    greeted.send({"type": "getstatus", "request_id": 1})
    assert (await greeted.read())["type"] == "status"


async def test_a_frame_over_the_limit_is_refused_before_it_is_read(greeted: RawClient):
    greeted.writer.write(struct.pack(">I", MAX_REQUEST_BYTES + 1))
    error = await greeted.read()
    assert (error["code"], error["request_id"]) == ("frame_too_large", None)
    assert str(MAX_REQUEST_BYTES) in error["message"]
    assert await greeted.is_closed()


async def test_a_request_id_under_way_cannot_be_used_again(greeted: RawClient):
    ask = {"type": "generate", "request_id": 5, "draft": {"prompt": "a cat"}}
    greeted.send(ask)
    assert (await greeted.read())["type"] == "accepted"
    greeted.send(ask)
    while (reply := await greeted.read())["type"] == "progress":
        pass
    assert "already under way" in reply["message"]
    greeted.send({"type": "cancel", "request_id": 6, "target": 5})
    while (reply := await greeted.read())["type"] == "progress":
        pass
    assert (reply["type"], reply["cancelled"], reply["kept"]) == ("cancelreply", 1, 0)
    greeted.send(ask)
    assert (await greeted.read())["type"] == "accepted"


async def test_a_full_connection_still_takes_a_cancel(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdq.server.server.MAX_REQUESTS_IN_FLIGHT", 1)
    server = await Server.start(settings, redis_url=redis_url)
    line = await RawClient.connect(server.port)
    try:
        line.send(HELLO)
        await line.read()
        line.send({"type": "generate", "request_id": 1, "draft": {"prompt": "a cat"}})
        assert (await line.read())["type"] == "accepted"
        line.send({"type": "getstatus", "request_id": 2})
        line.send({"type": "cancel", "request_id": 3, "target": 1})
        replies = [await line.read_until("errorreply", "cancelreply") for _ in range(2)]
        codes = {reply.get("code") or reply["type"] for reply in replies}
        assert codes == {"busy", "cancelreply"}
    finally:
        await line.close()
        await server.close()


async def test_many_requests_at_once_are_all_answered(greeted: RawClient):
    for number in range(200):
        greeted.send({"type": "getstatus", "request_id": number})
    answered = {(await greeted.read())["request_id"] for _ in range(200)}
    assert answered == set(range(200))


async def test_one_connection_too_many_is_told_so(settings: Settings, redis_url: str):
    few = replace(settings, server=replace(settings.server, max_connections=1))
    server = await Server.start(few, redis_url=redis_url)
    try:
        first = await RawClient.connect(server.port)
        first.send(HELLO)
        assert (await first.read())["type"] == "welcome"
        second = await RawClient.connect(server.port)
        assert (await second.read())["code"] == "busy"
        assert await second.is_closed()
        await second.close()
        await first.close()
    finally:
        await server.close()


async def test_a_silent_client_is_let_go_and_one_that_pings_is_not(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdq.server.server.IDLE_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("sdq.server.housekeeping.HOUSEKEEPING_SECONDS", 0.1)
    server = await Server.start(settings, redis_url=redis_url)
    silent = await RawClient.connect(server.port)
    lively = await RawClient.connect(server.port)
    try:
        for line in (silent, lively):
            line.send(HELLO)
            await line.read()
        silence = asyncio.create_task(silent.read())
        while not silence.done():
            lively.send({"type": "ping", "number": 1})
            assert (await lively.read())["type"] == "pong"
            await asyncio.sleep(0.1)
        assert "too long" in str((await silence)["message"])
        assert await silent.is_closed()
        lively.send({"type": "ping", "number": 2})
        assert await lively.read() == {"type": "pong", "number": 2}
    finally:
        await silent.close()
        await lively.close()
        await server.close()


async def test_a_server_that_stops_takes_leave_of_its_clients(settings: Settings, redis_url: str):
    server = await Server.start(settings, redis_url=redis_url)
    line = await RawClient.connect(server.port)
    line.send(HELLO)
    await line.read()
    line.send({"type": "generate", "request_id": 5, "draft": {"prompt": "a cat"}})
    assert (await line.read())["type"] == "accepted"
    await server.close()
    while (last := await line.read())["type"] == "progress":
        pass
    assert (last["type"], last["request_id"], last["code"]) == ("errorreply", None, "leaving")
    assert "connects again" in str(last["hint"])
    assert await line.is_closed()
    await line.close()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def fall_behind(
    server: Server, lines: list[RawClient], is_enough: Callable[[], bool]
) -> None:
    """Has the server write some 25 MB to each, of which nothing is read."""
    ask = {"type": "submit", "request_id": 0, "draft": {"prompt": "x" * 2_000}, "count": 100}
    await lines[0].ask(ask, "submitted")
    for line in lines:
        line.writer.transport.pause_reading()
        for number in range(100):
            line.send({"type": "listjobs", "request_id": number, "limit": 100})
    async with asyncio.timeout(20):
        while not is_enough():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.05)


def unread_bytes(server: Server) -> list[int]:
    return [session._stream.unread_bytes for session in server._sessions]


async def test_readers_that_take_nothing_do_not_hold_up_the_servers_end(
    settings: Settings, redis_url: str
):
    server = await Server.start(settings, redis_url=redis_url)
    lines = [await RawClient.greeted(server.port) for _ in range(3)]
    await fall_behind(server, lines, lambda: min(unread_bytes(server)) > 2**20)
    async with asyncio.timeout(4.5):
        await server.close()
    for line in lines:
        line.writer.transport.abort()


async def test_slow_readers_together_are_bounded_and_the_others_are_served(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdq.server.server.Outboxes", lambda: Outboxes(20 * 2**20))
    server = await Server.start(settings, redis_url=redis_url)
    good = await RawClient.greeted(server.port)
    slow = [await RawClient.greeted(server.port) for _ in range(4)]
    try:
        await fall_behind(server, slow, lambda: len(server._sessions) < 5)
        assert sum(unread_bytes(server)) <= 20 * 2**20
        assert good.reader.at_eof() is False
        assert (await good.ask({"type": "getstatus", "request_id": 1}, "status"))["queued"] == 100
    finally:
        await good.close()
        for line in slow:
            line.writer.transport.abort()
        await server.close()
