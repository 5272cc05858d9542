"""One search for the server, shared by all; patience with an end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from sdq.client import connector as module
from sdq.client.connection import Line
from sdq.client.connector import Connector
from sdq.errors import ConnectionFailed, ProtocolMismatch
from sdq.protocol.codec import encode
from sdq.protocol.framing import frame
from sdq.protocol.messages import GetStatus, Hello, Welcome
from sdq.testing.transport import LIMITS, ScriptedServer, stays_silent


@asynccontextmanager
async def connected(
    *, reconnect_seconds: float = 10
) -> AsyncIterator[tuple[ScriptedServer, Connector]]:
    async with ScriptedServer(stays_silent()) as server:
        connector = await Connector.open(
            "127.0.0.1",
            int(server.address.rpartition(":")[2]),
            connect_timeout_seconds=5,
            reconnect_seconds=reconnect_seconds,
        )
        yield server, connector
        await connector.close()


async def lost(server: ScriptedServer, connector: Connector) -> Line:
    await server.stop()
    line = connector.line
    mailbox = line.new_mailbox()
    with suppress(ConnectionFailed):
        line.begin(lambda number: GetStatus(number), mailbox)
        await asyncio.wait_for(mailbox.get(), 5)
    assert line.broken is not None
    return line


async def test_all_who_wait_share_one_search() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        waiting = [asyncio.create_task(connector.again(line)) for _ in range(20)]
        await server.start()
        found = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert set(found) == {connector.line}
        assert connector.line is not line
        assert server.connections == 2
        assert await connector.again(line) is connector.line  # late: it is there already


async def test_one_who_leaves_does_not_end_the_search_of_the_others() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        one, other = (asyncio.create_task(connector.again(line)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        await server.start()
        assert await asyncio.wait_for(other, 10) is connector.line


async def test_the_last_one_who_leaves_ends_it() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        waiting = asyncio.create_task(connector.again(line))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "sdq client: reconnect" not in names
        assert server.connections == 1


async def test_patience_ends() -> None:
    async with connected(reconnect_seconds=0.3) as (server, connector):
        line = await lost(server, connector)
        with pytest.raises(ConnectionFailed, match="nothing listens there"):
            await asyncio.wait_for(connector.again(line), 5)
        await server.start()
        assert (await connector.usable()).broken is None  # who asks anew gets a new line


async def test_a_server_that_dies_at_each_start_is_given_up_too() -> None:
    async with connected(reconnect_seconds=0.5) as (server, connector):
        line = await lost(server, connector)
        await server.start()
        with pytest.raises(ConnectionFailed):  # noqa: PT012  any of the rounds may be the last
            async with asyncio.timeout(10):
                while True:
                    await connector.again(line)
                    line = await lost(server, connector)
                    await server.start()
                    if server.connections > 100:
                        break


async def test_another_version_is_not_waited_for() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        newer = frame(encode(Welcome(protocol=9, server="newer", limits=LIMITS)), 10_000)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(newer)
            await writer.drain()
            writer.close()

        port = int(server.address.rpartition(":")[2])
        other = await asyncio.start_server(talk, "127.0.0.1", port)
        with pytest.raises(ProtocolMismatch, match="9"):
            await asyncio.wait_for(connector.again(line), 5)
        other.close()
        await other.wait_closed()


async def test_a_tunnel_to_a_server_that_is_not_there_is_waited_for() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        port = int(server.address.rpartition(":")[2])
        calls = asyncio.Semaphore(0)

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            calls.release()
            await reader.read(10)
            writer.close()

        tunnel = await asyncio.start_server(hang_up, "127.0.0.1", port)
        waiting = asyncio.create_task(connector.again(line))
        for _ in range(2):
            await asyncio.wait_for(calls.acquire(), 10)
        tunnel.close()
        await tunnel.wait_closed()
        await server.start()
        assert await asyncio.wait_for(waiting, 10) is connector.line


async def test_the_delay_doubles_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    async with connected() as (server, connector):
        line = await lost(server, connector)
        monkeypatch.setattr(module.asyncio, "sleep", sleep)
        waiting = asyncio.create_task(connector.again(line))
        while len(slept) < 10:
            await real(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0]
    for seconds, most in zip(slept, bounds, strict=False):
        assert most / 2 <= seconds <= most


async def test_what_is_short_tries_once_on_a_broken_line() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        with pytest.raises(ConnectionFailed, match="nothing listens"):
            await connector.usable()
        await server.start()
        again = await asyncio.gather(*(connector.usable() for _ in range(5)))
        assert len(set(again)) == 1
        assert again[0] is not line
        assert len(server.heard_of(Hello)) == 2


async def test_nothing_is_opened_after_closing() -> None:
    async with connected() as (server, connector):
        line = await lost(server, connector)
        waiting = asyncio.create_task(connector.again(line))
        await asyncio.sleep(0.05)
        await connector.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(ConnectionFailed, match="closed"):
            await connector.usable()
