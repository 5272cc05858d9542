"""The server's way to Redis: fails at once when Redis is away, and always in the same words."""

from collections.abc import Iterable
from typing import Any

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from sdq.errors import UsageError
from sdq.server.queue.events import BLOCK_MILLISECONDS

CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 50
POOL_TIMEOUT_SECONDS = 10.0
"""How long a command waits for one of these: a thousand clients may cancel at once."""


def connect(redis_url: str) -> "Redis":
    """A client that reports at once when Redis is away: the callers know how to wait.

    Raises `UsageError` for what is no URL of a Redis.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            redis_url,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=BLOCK_MILLISECONDS / 1000 + CONNECT_TIMEOUT_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 1),
            max_connections=MAX_CONNECTIONS,
            timeout=POOL_TIMEOUT_SECONDS,
        )
    except ValueError as error:  # not shown: it may hold a piece of the password
        raise UsageError(
            "the address of Redis is not usable",
            hint="it looks like redis://:password@host:6379/0",
        ) from error
    pool.connection_class = _KINDS.get(pool.connection_class, pool.connection_class)
    return Redis.from_pool(pool)


class _OneWord(AbstractConnection):
    """A Redis that hangs up while a command is on its way is a `RedisError`, as at other times.

    uvloop raises a plain RuntimeError there ("the handler is closed"), and redis-py 8.1 lets it
    through: a Redis that was killed at the wrong moment ended the server.
    """

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError(f"Redis hung up: {error}") from error


class _Plain(_OneWord, Connection):
    pass


class _Encrypted(_OneWord, SSLConnection):
    pass


class _Local(_OneWord, UnixDomainSocketConnection):
    pass


_KINDS: dict[Any, Any] = {
    Connection: _Plain,
    SSLConnection: _Encrypted,
    UnixDomainSocketConnection: _Local,
}
