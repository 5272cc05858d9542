"""A picture that grows before somebody's eyes: client, server, Redis, Celery and a worker."""

import asyncio
import io
import os
import subprocess
import sys
from asyncio import to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image

import sdq
from sdq.broker import MAX_PREVIEW_BYTES
from sdq.client.client import Client
from sdq.client.news import News
from sdq.config import Settings
from sdq.protocol.messages import Accepted, Picture, Progress
from sdq.protocol.model import ModelManifest
from sdq.server.server import Server
from sdq.spec import SpecDraft
from sdq.testing.handwork import HandWorker
from sdq.testing.rig import png

CAT = SpecDraft("a cat", num_inference_steps=40)
JPEG = b"\xff\xd8\xff grey \xff\xd9"
Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


@asynccontextmanager
async def clients(settings: Settings, redis_url: str) -> AsyncIterator[tuple[Client, Client]]:
    """Two of one server."""
    server = await Server.start(settings, redis_url=redis_url)
    address = f"127.0.0.1:{server.port}"
    try:
        async with await Client.connect(address) as one, await Client.connect(address) as two:
            yield one, two
    finally:
        await server.close()


async def collect(news: AsyncIterator[News]) -> list[News]:
    return [one async for one in news]


def previews(news: list[News]) -> list[bytes]:
    return [one.preview for one in news if isinstance(one, Progress) and one.preview]


@pytest.fixture
def real_worker(redis_url: str, shapes: ModelManifest, tmp_path: Path) -> Iterator[None]:
    """A process with all of a worker but torch; 40 steps take it 0.8 s."""
    arguments = [str(tmp_path / "worker"), "--redis", redis_url, "--at-once", "4"]
    arguments += ["--fingerprint", shapes.fingerprint, "--seconds-per-step", "0.02"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sdq.testing.worker", *arguments],
        cwd=Path(sdq.__file__).parents[1],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "SDQ_HOME": str(tmp_path / "worker")},
    )
    yield
    process.terminate()
    process.wait(20)


async def test_who_asks_sees_it_grow_and_who_does_not_gets_the_picture_alone(
    settings: Settings, redis_url: str, real_worker: None
) -> None:
    async with clients(settings, redis_url) as (one, two), asyncio.timeout(60):
        watching = asyncio.create_task(collect(one.watch(CAT, preview=True)))
        waiting = asyncio.create_task(collect(two.watch(CAT)))
        watched, plain = await watching, await waiting
    assert previews(plain) == []
    seen = previews(watched)
    assert len(seen) >= 2
    for data in seen:
        assert len(data) <= MAX_PREVIEW_BYTES
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (64, 64))
    assert isinstance(watched[-1], Picture)
    assert isinstance(plain[-1], Picture)
    assert watched[-1].image == plain[-1].image


async def test_who_comes_later_is_heard_and_who_leaves_is_forgotten(
    settings: Settings, redis_url: str, worker: HandWorker, eventually: Eventually
) -> None:
    worker.beat()
    async with clients(settings, redis_url) as (one, two):
        first = asyncio.create_task(collect(one.watch(CAT)))
        task = await to_thread(worker.take)
        await to_thread(worker.begin, task)
        assert not await to_thread(worker.is_asked_to_show, task)
        news = two.attach([task.job_id], preview=True)
        assert isinstance(await anext(news), Accepted)
        await eventually(lambda: to_thread(worker.is_asked_to_show, task))
        await to_thread(worker.step, task, 5, JPEG)
        async with asyncio.timeout(20):
            async for item in news:
                if isinstance(item, Progress) and item.preview:
                    assert (item.step, item.preview) == (5, JPEG)
                    break
        await news.aclose()
        # Too large: the reading of events goes on all the same.
        await to_thread(worker.step, task, 6, JPEG + bytes(MAX_PREVIEW_BYTES))
        await to_thread(worker.deliver, task, png())
        told = await first
        assert previews(told) == []
        assert isinstance(told[-1], Picture)
