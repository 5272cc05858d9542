"""`Stream` over real loopback sockets: nothing is lost, nothing is unbounded."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from sdq.errors import (
    ConnectionFailed,
    FrameTooLarge,
    InvalidMessage,
    LocalProtocolError,
    ProtocolError,
)
from sdq.protocol.connection import ConnectionState
from sdq.protocol.framing import frame
from sdq.protocol.messages import (
    ClientMessage,
    ErrorReply,
    Generate,
    ListModels,
    Ping,
    Pong,
    ServerMessage,
)
from sdq.protocol.stream import Stream
from sdq.spec import SpecDraft

MIB = 1024 * 1024
Join = Callable[..., Awaitable[tuple[Stream[ServerMessage], Stream[ClientMessage]]]]
LARGE = ErrorReply(1, "x", "m" * (4 * MIB))


def send_many(stream: Stream[ClientMessage], count: int) -> None:
    for _ in range(count):
        stream.send(LARGE)


async def test_messages_both_ways_in_order(join: Join) -> None:
    client, server = await join()
    requests = [Ping(number) for number in range(500)]
    for request in requests:
        client.send(request)
    await client.drained()
    assert [await server.receive(5) for _ in requests] == requests
    for request in requests:
        server.send(Pong(request.number))
    assert [await client.receive(5) for _ in requests] == [Pong(r.number) for r in requests]


async def test_a_large_message_arrives_whole(join: Join) -> None:
    client, server = await join()
    server.send(LARGE)
    drained = asyncio.create_task(server.drained())
    assert await client.receive(5) == LARGE
    await drained


async def test_silence_is_a_timeout_and_not_the_end(join: Join) -> None:
    client, server = await join()
    with pytest.raises(TimeoutError):
        await server.receive(0.02)
    client.send(Ping(1))
    assert await server.receive(5) == Ping(1)


async def test_cancelling_receive_loses_nothing(join: Join) -> None:
    client, server = await join()
    data = b"".join(client.connection.send(Ping(number)) for number in range(200))

    async def dribble() -> None:
        for start in range(0, len(data), 7):
            client.send_bytes(data[start : start + 7])
            await asyncio.sleep(0)

    sender = asyncio.create_task(dribble())
    found: list[Any] = []
    cancelled = 0
    while len(found) < 200:
        receiving = asyncio.create_task(server.receive(5))
        await asyncio.sleep(0)
        if not receiving.done() and cancelled < 500:
            receiving.cancel()
            cancelled += 1
        try:
            found.append(await receiving)
        except asyncio.CancelledError:
            continue
    await sender
    assert found == [Ping(number) for number in range(200)]
    assert cancelled > 10


async def test_a_reader_that_is_too_slow_hits_the_bound(join: Join) -> None:
    _, server = await join(server_options={"max_outbox_bytes": 10 * MIB})
    with pytest.raises(ConnectionFailed, match="too slowly"):
        send_many(server, 50)
    with pytest.raises(LocalProtocolError):
        server.send(Pong(1))
    assert await server.receive(5) is None


async def test_a_peer_that_stops_reading_is_cut_off(join: Join) -> None:
    _, server = await join(server_options={"write_timeout_seconds": 0.2})
    for _ in range(8):
        server.send(LARGE)
    start = time.monotonic()
    with pytest.raises(ConnectionFailed, match="stopped reading"):
        await server.drained()
    assert time.monotonic() - start < 5
    assert server.connection.state is ConnectionState.CLOSED


async def test_a_peer_that_reads_slowly_but_steadily_is_not_cut_off(join: Join) -> None:
    client, server = await join(server_options={"write_timeout_seconds": 0.25})
    for _ in range(8):
        server.send(LARGE)
    start = time.monotonic()
    draining = asyncio.create_task(server.drained())
    for _ in range(8):
        assert await client.receive(5) == LARGE
        await asyncio.sleep(0.1)
    await draining
    assert time.monotonic() - start > 0.5


async def test_cancelling_drained_keeps_the_connection(join: Join) -> None:
    client, server = await join()
    for _ in range(4):
        server.send(LARGE)
    draining = asyncio.create_task(server.drained())
    await asyncio.sleep(0.01)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    server.send(Pong(9))
    assert [await client.receive(5) for _ in range(5)] == [LARGE] * 4 + [Pong(9)]


async def test_close_sends_what_waits(join: Join) -> None:
    client, server = await join()
    for _ in range(4):
        server.send(LARGE)
    closing = asyncio.create_task(server.close())
    assert [await client.receive(5) for _ in range(5)] == [LARGE] * 4 + [None]
    await closing
    assert await client.receive(5) is None


async def test_close_does_not_wait_for_ever(join: Join) -> None:
    _, server = await join(server_options={"write_timeout_seconds": 0.2})
    for _ in range(8):
        server.send(LARGE)
    async with asyncio.timeout(5):
        await server.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        server.send(Pong(1))


async def test_close_twice_and_after_the_peer_is_gone(join: Join) -> None:
    client, server = await join()
    client.abort()
    await server.close()
    await server.close()
    await client.close()


async def test_abort_drops_what_waits(join: Join) -> None:
    client, server = await join()
    for _ in range(8):
        server.send(LARGE)
    server.abort()
    last: object = LARGE
    with suppress(ConnectionFailed):  # a reset, or an end that cuts a message
        while last == LARGE:
            last = await client.receive(5)
        assert "in the middle" in str(last)
    assert await server.receive(5) is None


async def test_a_reset_is_a_broken_line(join: Join) -> None:
    client, server = await join()
    raw: socket.socket = client._writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.abort()
    with pytest.raises(ConnectionFailed, match="the connection broke"):
        await server.receive(5)


async def test_a_timeout_of_the_network_is_a_broken_line_and_not_silence(join: Join) -> None:
    _, server = await join()
    server._reader.set_exception(TimeoutError(110, "Connection timed out"))
    with pytest.raises(ConnectionFailed, match="timed out"):
        await server.receive(5)


async def test_the_end_inside_a_message_is_an_error_then_the_end(join: Join) -> None:
    client, server = await join()
    client.send_bytes(b"\0\0\0\x09abc")
    await client.close()
    error = await server.receive(5)
    assert isinstance(error, ProtocolError)
    assert "in the middle" in error.message
    assert await server.receive(5) is None


async def test_after_a_frame_over_the_limit_nothing_more_is_read(join: Join) -> None:
    client, server = await join()
    client.send(ListModels(1))
    client.send_bytes(b"\x7f\xff\xff\xff" + b"x" * MIB)
    assert await server.receive(5) == ListModels(1)
    assert isinstance(await server.receive(5), FrameTooLarge)
    assert await server.receive(5) is None
    server.send_error(ErrorReply(None, "frame_too_large", "too large"))
    await server.linger(timeout_seconds=0.2)
    await server.close()
    assert await client.receive(5) == ErrorReply(None, "frame_too_large", "too large")


async def test_an_invalid_message_leaves_the_connection_alive(join: Join) -> None:
    client, server = await join()
    client.send_bytes(frame(b"\xc1", 10))
    assert isinstance(await server.receive(5), InvalidMessage)
    client.send(Generate(1, SpecDraft("a red circle")))
    assert await server.receive(5) == Generate(1, SpecDraft("a red circle"))


async def test_the_two_addresses_are_for_people(join: Join) -> None:
    client, server = await join()
    assert client.peer.startswith("127.0.0.1:")
    assert server.local_host == "127.0.0.1"
