"""`connect`: the way in for scripts."""

from collections.abc import Generator
from types import TracebackType

from sdq.client.client import Client
from sdq.config import load


class Connecting:
    """What `connect` gives: await it, or use it in ``async with``, which closes the client too."""

    def __init__(
        self, server: str | None, connect_timeout_seconds: float, reconnect_seconds: float | None
    ) -> None:
        self._server = server
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reconnect_seconds = reconnect_seconds
        self._client: Client | None = None

    def __await__(self) -> Generator[object, None, Client]:
        return self.open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self.open()
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._client is not None
        await self._client.close()

    async def open(self) -> Client:
        """The same as a coroutine."""
        server, reconnect_seconds = self._server, self._reconnect_seconds
        if server is None or reconnect_seconds is None:
            configured = load().client
            server = configured.server if server is None else server
            if reconnect_seconds is None:
                reconnect_seconds = configured.reconnect_seconds
        return await Client.connect(
            server,
            connect_timeout_seconds=self._connect_timeout_seconds,
            reconnect_seconds=reconnect_seconds,
        )


def connect(
    server: str | None = None,
    *,
    connect_timeout_seconds: float = 10,
    reconnect_seconds: float | None = None,
) -> Connecting:
    """A connection to a server, tried once::

        async with connect("gpu-box:7433") as client:
            ...
        client = await connect()  # and `await client.close()` at the end

    ``server``: ``host:port``; ``None``: what `SDQ_SERVER` or the configuration file say, else this
    machine. ``reconnect_seconds``: how long a server that is lost later is looked for, 0: not at
    all, ``None``: as configured (300 by default).

    Raises `UsageError` for what is no address and for a broken configuration, `ConnectionFailed`
    when nobody answers, `ProtocolMismatch` when an older, newer or foreign server does. Safe to
    cancel.
    """
    return Connecting(server, connect_timeout_seconds, reconnect_seconds)
