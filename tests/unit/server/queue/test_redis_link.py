"""A Redis that hangs up in the middle of a command is one that is away, on every event loop."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from sdq.errors import UsageError
from sdq.server.queue.redis_link import MAX_CONNECTIONS, connect
from sdq.stack.redis import RedisServer


async def ping_while_it_hangs_up(url: str) -> None:
    """Redis' end of the line is gone between the decision to send and the sending."""
    redis = connect(url)
    try:
        await redis.ping()
        (connection,) = redis.connection_pool._available_connections
        send = connection._send_packed_command

        async def send_too_late(command: Any) -> None:
            connection._writer.transport.abort()
            await asyncio.sleep(0.01)
            await send(command)

        connection._send_packed_command = send_too_late
        with pytest.raises(RedisConnectionError):
            await redis.ping()
        del connection._send_packed_command
        assert await redis.ping()
    finally:
        await redis.aclose()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_hanging_up_while_a_command_is_sent(
    redis_url: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(ping_while_it_hangs_up(redis_url))


def test_a_local_socket_and_an_encrypted_line_say_it_in_the_same_way(tmp_path: Path) -> None:
    for url in (f"unix://{tmp_path}/redis.sock", "rediss://127.0.0.1:1/0"):
        kind = connect(url).connection_pool.connection_class
        assert kind.send_packed_command is not kind.__mro__[2].send_packed_command


async def test_a_redis_that_is_away_fails_at_once(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        redis = connect(server.url)
        assert await redis.ping()
    with pytest.raises(RedisConnectionError):
        await redis.ping()
    await redis.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:secret/0"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(url)
    assert "secret" not in caught.value.message


async def test_more_commands_at_once_than_connections_wait_for_one(redis_url: str) -> None:
    """Else the cancel flags of most of a thousand clients that cancel at once are lost."""
    redis = connect(redis_url)
    names = [f"sdq.test.{number}" for number in range(4 * MAX_CONNECTIONS)]
    await asyncio.gather(*(redis.set(name, 1, ex=60) for name in names))
    assert await redis.exists(*names) == len(names)
    await redis.delete(*names)
    await redis.aclose()
