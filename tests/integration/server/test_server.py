"""The server through its socket, with a real Redis behind it."""

import asyncio
import shutil
from asyncio import to_thread
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty

import pytest

from sdq.client.client import Client
from sdq.config import Settings
from sdq.errors import NotInLibrary, StackError, UsageError
from sdq.protocol.messages import Accepted, CachePolicy, Failure, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.server import Server
from sdq.spec import SpecDraft
from sdq.stack.redis import RedisServer
from sdq.testing.handwork import HandWorker
from sdq.testing.rig import png

CAT = SpecDraft("a cat")


@asynccontextmanager
async def serving(settings: Settings, redis_url: str):
    server = await Server.start(settings, redis_url=redis_url)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def asking(settings: Settings, redis_url: str):
    async with (
        serving(settings, redis_url) as server,
        await Client.connect(f"127.0.0.1:{server.port}") as client,
    ):
        yield client


async def collect(client: Client, draft: SpecDraft = CAT, **options):
    return [news async for news in client.watch(draft, **options)]


def pictures(news) -> list[Picture]:
    return [one for one in news if isinstance(one, Picture)]


async def test_made_then_answered_from_the_library(
    settings: Settings, redis_url: str, worker: HandWorker
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client))
        task = await to_thread(worker.take)
        await to_thread(worker.begin, task)
        await to_thread(worker.step, task, 7)
        await asyncio.sleep(0.1)
        await to_thread(worker.deliver, task, png())
        news = await request
        assert isinstance(news[0], Accepted)
        assert 7 in [one.step for one in news if isinstance(one, Progress)]
        assert [(one.cache, one.image, one.remaining) for one in pictures(news)] == [
            ("made", png(), 0)
        ]
        again = await collect(client)
        assert [type(one) for one in again] == [Picture]
        assert (again[0].cache, again[0].key) == ("hit", news[-1].key)
        assert worker.unread(task.server_id) == 0


async def test_two_clients_who_ask_the_same_wait_for_one_job(
    settings: Settings, redis_url: str, worker: HandWorker, eventually
):
    worker.beat()
    async with serving(settings, redis_url) as server:
        address = f"127.0.0.1:{server.port}"
        async with await Client.connect(address) as one, await Client.connect(address) as two:
            first = asyncio.create_task(collect(one))
            task = await to_thread(worker.take)
            second = asyncio.create_task(collect(two))
            await to_thread(worker.begin, task)
            worker.beat(active=[task.job_id])
            await asyncio.sleep(0.3)
            await to_thread(worker.deliver, task, png())
            assert pictures(await first)[0].cache == "made"
            assert pictures(await second)[0].cache == "joined"


async def test_leaving_a_request_stops_the_worker(
    settings: Settings, redis_url: str, worker: HandWorker, eventually
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client))
        task = await to_thread(worker.take)
        await to_thread(worker.begin, task)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await eventually(lambda: to_thread(worker.is_cancelled, task))
        status = await client.status()
        assert (status.queued, status.dispatched, status.running) == (0, 0, 0)


async def test_a_client_that_vanishes_leaves_its_picture_in_the_library(
    settings: Settings, redis_url: str, worker: HandWorker, eventually
):
    worker.beat()
    async with serving(settings, redis_url) as server:
        address = f"127.0.0.1:{server.port}"
        lost = await Client.connect(address)
        request = asyncio.create_task(collect(lost))
        task = await to_thread(worker.take)
        await lost.close()
        await asyncio.gather(request, return_exceptions=True)
        await to_thread(worker.deliver, task, png())
        async with await Client.connect(address) as client:

            async def is_there() -> bool:
                return (await client.status()).pictures == 1

            await eventually(is_there)
            assert pictures(await collect(client, cache=CachePolicy.ONLY))[0].cache == "hit"


async def test_a_server_that_was_away_reads_what_came_meanwhile(
    settings: Settings, redis_url: str, worker: HandWorker, eventually
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client))
        task = await to_thread(worker.take)
        await to_thread(worker.begin, task)
    await asyncio.gather(request, return_exceptions=True)
    worker.deliver(task, png())
    async with asking(settings, redis_url) as client:

        async def is_there() -> bool:
            return (await client.status()).pictures == 1

        await eventually(is_there)
        assert pictures(await collect(client))[0].cache == "hit"


async def test_redis_gone_and_back_empty_loses_no_job(
    settings: Settings, tmp_path: Path, shapes, eventually
):
    redis = RedisServer(tmp_path / "redis").start()
    url = redis.url
    try:
        async with asking(settings, url) as client:
            await to_thread(redis.stop)
            request = asyncio.create_task(collect(client))

            async def says_so() -> bool:
                return (await client.status()).redis != "ok"

            await eventually(says_so)
            (kept,) = (tmp_path / "redis").glob("appendonly*")
            await to_thread(shutil.rmtree, kept)
            redis = await to_thread(RedisServer(tmp_path / "redis").start)
            assert redis.url == url
            worker = HandWorker(url, shapes)
            worker.beat()
            task = await to_thread(worker.take, 20)
            await to_thread(worker.deliver, task, png())
            assert pictures(await request)[0].cache == "made"
            assert (await client.status()).redis == "ok"
            worker.close()
    finally:
        await to_thread(redis.stop)


async def test_a_worker_that_dies_is_replaced(
    settings: Settings, redis_url: str, worker: HandWorker, shapes, eventually
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client))
        task = await to_thread(worker.take)
        await to_thread(worker.begin, task)
        worker.beat(active=[task.job_id])
        second = HandWorker(redis_url, shapes, "worker-2")
        try:
            worker.die()
            again = None
            async with asyncio.timeout(30):
                while again is None:
                    second.beat()
                    with suppress(Empty):
                        again = await to_thread(second.take, 1)
            assert (again.job_id, again.attempt) == (task.job_id, 2)
            await to_thread(second.deliver, again, png())
            news = await request
        finally:
            second.close()
        assert pictures(news)[0].cache == "made"
        assert any("is gone" in one.note for one in news if isinstance(one, Progress))


async def test_garbage_in_the_stream_is_dropped_and_reading_goes_on(
    settings: Settings, redis_url: str, worker: HandWorker, eventually
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client))
        task = await to_thread(worker.take)
        for data in (b"", b"\xff" * 100, b"\x81\xa4type\xa4evil", b"\x80"):
            worker.garbage(task.server_id, data)
        await to_thread(worker.deliver, task, b"not a picture")
        again = await to_thread(worker.take)
        assert again.attempt == 2
        await to_thread(worker.deliver, again, png())
        assert pictures(await request)[0].image == png()

        async def all_read() -> bool:
            return worker.unread(task.server_id) == 0

        await eventually(all_read)


async def test_nobody_online_is_said_at_once(settings: Settings, redis_url: str):
    async with asking(settings, redis_url) as client:
        (failure,) = await collect(client, wait=False)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.message) == (
            "no_worker",
            "no worker online holds 'shapes'",
        )
        stream = client.watch(CAT)
        assert isinstance(await anext(stream), Accepted)
        news = await anext(stream)
        assert isinstance(news, Progress)
        assert (news.state, news.note) == (JobState.QUEUED, "no worker online holds 'shapes'")
        await stream.aclose()


async def test_library_commands_over_the_wire(
    settings: Settings, redis_url: str, worker: HandWorker
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client))
        await to_thread(lambda: worker.deliver(worker.take(), png()))
        key = pictures(await request)[0].key
        (found,) = await client.find("CAT")
        assert (found.key, found.spec.prompt) == (key, "a cat")
        assert await client.find("dog") == ()
        assert (await client.fetch(key[:8])).png == png()
        removed = await client.remove([key[:8]])
        assert (removed.pictures, removed.freed_bytes) == (1, len(png()))
        with pytest.raises(UsageError):
            await client.fetch(key[:8])
        (failure,) = await collect(client, cache=CachePolicy.ONLY)
        assert failure.code == NotInLibrary.code


async def test_a_worker_is_told_link_hashes_and_redis(settings: Settings, redis_url: str):
    async with asking(settings, redis_url) as client:
        setup = await client.worker_setup(None)
        assert setup.redis_url == redis_url
        assert setup.model.model_id == "shapes"
        assert all(file.links and file.sha256 for file in setup.model.files)
        models = {model.model_id: model for model in await client.models()}
        assert models["shapes"].is_default
        assert models["shapes"].fingerprint == setup.model.fingerprint


async def test_an_address_in_use_and_a_data_directory_in_use_are_said(
    settings: Settings, redis_url: str, tmp_path: Path
):
    async with serving(settings, redis_url) as server:
        with pytest.raises((StackError, UsageError), match=r"in use|another|already"):
            await Server.start(settings, redis_url=redis_url)
        elsewhere = replace(settings.server, data_dir=str(tmp_path / "b"), port=server.port)
        with pytest.raises(StackError, match=f"cannot listen on 127.0.0.1:{server.port}"):
            await Server.start(replace(settings, server=elsewhere), redis_url=redis_url)


@pytest.mark.parametrize("url", ["queue-box", "redis://:secret@queue-box:port/0"])
async def test_an_address_of_redis_that_is_none_is_wrong_usage(settings: Settings, url: str):
    with pytest.raises(UsageError, match="address of Redis") as refused:
        await Server.start(settings, redis_url=url)
    assert "secret" not in str(refused.value) + refused.value.hint


async def test_a_server_that_has_just_started_knows_the_workers_online(
    settings: Settings, redis_url: str, worker: HandWorker
):
    worker.beat()
    async with asking(settings, redis_url) as client:
        request = asyncio.create_task(collect(client, wait=False))
        await to_thread(lambda: worker.deliver(worker.take(), png()))
        assert pictures(await request)[0].cache == "made"
