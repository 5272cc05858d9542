"""A server whose jobs outlive it, and somebody who reads the news of a request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import pytest

from sdq import Client
from sdq.client.news import News
from sdq.protocol.messages import Picture
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import ScriptedServer

Served = Callable[..., AbstractAsyncContextManager[tuple[ScriptedServer, ScriptedJobs, Client]]]


class Reader:
    """Reads a request's news in a task, as a person would see them."""

    def __init__(self, news: AsyncIterator[News]) -> None:
        self.news: list[News] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._read(news))

    async def _read(self, news: AsyncIterator[News]) -> None:
        async with aclosing(news) as items:  # type: ignore[type-var]
            async for item in items:
                self.news.append(item)
                self._changed.set()

    def of(self, kind: type[News]) -> list[News]:
        return [item for item in self.news if isinstance(item, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                assert not self.task.done(), self.task
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> list[Picture]:
        async with asyncio.timeout(10):
            await self.task
        return [item for item in self.news if isinstance(item, Picture)]


@asynccontextmanager
async def _served(
    *, reconnect_seconds: float = 10
) -> AsyncIterator[tuple[ScriptedServer, ScriptedJobs, Client]]:
    table = ScriptedJobs()
    async with (
        ScriptedServer(table.handle) as server,
        await Client.connect(server.address, reconnect_seconds=reconnect_seconds) as client,
    ):
        yield server, table, client


@pytest.fixture
def served() -> Served:
    """A server with `ScriptedJobs`, and a client of it."""
    return _served


@pytest.fixture
def read() -> Callable[[AsyncIterator[News]], Reader]:
    """Begins to read the news of a request, in a task."""
    return Reader
