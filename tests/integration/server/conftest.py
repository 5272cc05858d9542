"""A real server on a real Redis, and workers played by hand."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sdq import config
from sdq.config import Settings
from sdq.protocol.model import ModelManifest
from sdq.server.catalog import Catalog
from sdq.testing.handwork import HandWorker

Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


@pytest.fixture
def settings(sdq_home: Path) -> Settings:
    loaded = config.load()
    return replace(loaded, server=replace(loaded.server, port=0))


@pytest.fixture
def shapes() -> ModelManifest:
    return Catalog.load().manifest("shapes")


@pytest.fixture
def worker(redis_url: str, shapes: ModelManifest) -> Iterator[HandWorker]:
    worker = HandWorker(redis_url, shapes)
    yield worker
    worker.close()


@pytest.fixture
def eventually() -> Eventually:
    """Waits, for a bounded time, until an async condition holds."""

    async def wait(condition: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(20):
            while not await condition():  # noqa: ASYNC110 - there is nothing to be woken by
                await asyncio.sleep(0.02)

    return wait
