"""The dispatcher and the event reader on a real Redis."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from sdq.broker import (
    CANCEL_FLAG_SECONDS,
    EVENT_FIELD,
    PREVIEW_FLAG_SECONDS,
    Begun,
    WorkerEvent,
    cancel_flag,
    drain_flag,
    events_stream,
    pack,
    preview_flag,
    queue_of,
)
from sdq.protocol.model import ModelFile, ModelManifest
from sdq.protocol.states import JobState
from sdq.server.queue.dispatch import CeleryDispatcher, RedisGone
from sdq.server.queue.events import EventReader
from sdq.server.queue.job import Job
from sdq.server.server import connect
from sdq.spec import ImageSpec, Lora
from sdq.stack.redis import RedisServer
from sdq.testing.handwork import HandWorker

SPEC = ImageSpec("a cat", "", "shapes", 64, 64, 20, 4.0, "ddim", 1)
QUEUE = queue_of(SPEC.model, "f" * 64)


def dispatched(job_id: str, attempt: int = 1) -> Job:
    return Job(
        job_id=job_id,
        key="a" * 64,
        spec=SPEC,
        fingerprint="f" * 64,
        state=JobState.DISPATCHED,
        attempt=attempt,
        keep=True,
        identity="me",
        created_at=0.0,
        dispatched_at=0.0,
        changed_at=None,
        worker_id=None,
        error_code="",
        error_message="",
        draw_seconds=None,
    )


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = connect(redis_url)
    yield redis
    await redis.aclose()


@pytest.fixture
async def dispatcher(redis: Redis, redis_url: str) -> AsyncIterator[CeleryDispatcher]:
    dispatcher = CeleryDispatcher(redis, redis_url, "server1")
    yield dispatcher
    await dispatcher.close()


async def flag_of(redis: Redis, job_id: str) -> bytes | None:
    return await redis.get(cancel_flag(job_id))


async def test_what_waits_in_a_queue_is_known_by_its_jobs(
    redis: Redis, dispatcher: CeleryDispatcher
):
    await dispatcher.send([dispatched("job1"), dispatched("job2")])
    await redis.lpush(QUEUE, b"not from us", b'{"headers": []}')
    assert await dispatcher.waiting(QUEUE) == {"job1", "job2", ""}
    assert await dispatcher.waiting("another") == set()


async def test_a_first_attempt_has_no_flag_and_a_later_one_stops_those_before(
    redis: Redis, dispatcher: CeleryDispatcher
):
    await dispatcher.send([dispatched("job1"), dispatched("job2", attempt=3)])
    assert await flag_of(redis, "job1") is None
    assert await flag_of(redis, "job2") == b"2"
    assert 0 < await redis.ttl(cancel_flag("job2")) <= CANCEL_FLAG_SECONDS


async def test_a_flag_only_rises_so_that_a_cancel_while_it_is_sent_holds(
    redis: Redis, dispatcher: CeleryDispatcher
):
    job = dispatched("job1", attempt=2)
    await dispatcher.stop([job])
    assert await flag_of(redis, "job1") == b"2"
    await dispatcher.send([job])
    assert await flag_of(redis, "job1") == b"2"
    await dispatcher.send([dispatched("job1", attempt=4)])
    assert await flag_of(redis, "job1") == b"3"


async def test_what_was_never_given_out_needs_no_flag(redis: Redis, dispatcher: CeleryDispatcher):
    await dispatcher.stop([dispatched("job1", attempt=0)])
    await dispatcher.stop([])
    assert await flag_of(redis, "job1") is None


async def test_workers_are_asked_for_previews_for_a_while(
    redis: Redis, dispatcher: CeleryDispatcher
):
    await dispatcher.show(["job1", "job2"])
    for job_id in ("job1", "job2"):
        assert 0 < await redis.ttl(preview_flag(job_id)) <= PREVIEW_FLAG_SECONDS
    assert not await redis.exists(preview_flag("job3"))


async def test_a_worker_is_told_to_drain(redis: Redis, dispatcher: CeleryDispatcher):
    await dispatcher.drain("gpu-1")
    assert await redis.exists(drain_flag("gpu-1"))
    assert await redis.ttl(drain_flag("gpu-1")) > 0


async def test_a_redis_that_is_not_there_is_said_in_words():
    url = "redis://127.0.0.1:1/0"
    redis = connect(url)
    dispatcher = CeleryDispatcher(redis, url, "server1")
    job = dispatched("job1", attempt=1)  # no flag is to be raised first: Celery itself finds out
    began = time.monotonic()
    try:
        with pytest.raises(RedisGone):
            await dispatcher.send([job])
        assert time.monotonic() - began < 3  # the scheduler tries again, not Celery
        job = dispatched("job1", attempt=2)
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: dispatcher.send([job]),
            lambda: dispatcher.stop([job]),
            lambda: dispatcher.drain("gpu-1"),
            lambda: dispatcher.waiting(QUEUE),
        ]
        for ask in asked:
            with pytest.raises(RedisGone, match="Redis does not"):
                await ask()
    finally:
        await dispatcher.close()
        await redis.aclose()


async def test_a_redis_that_is_stopped_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The server ends in spite of it, and goes on with it later."""
    monkeypatch.setattr("sdq.server.queue.dispatch.SEND_TIMEOUT_SECONDS", 0.5)
    with RedisServer(tmp_path / "redis") as server:
        redis = connect(server.url)
        dispatcher = CeleryDispatcher(redis, server.url, "server1")
        await dispatcher.send([dispatched("job1")])
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(RedisGone):
                    await dispatcher.send([dispatched("job2")])
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await dispatcher.send([dispatched("job3")])
        assert {"job1", "job3"} <= await dispatcher.waiting(QUEUE)
        await dispatcher.close()
        await redis.aclose()


async def test_a_mark_is_passed_when_all_before_it_is_committed(redis: Redis, eventually):
    reader = EventReader(redis, "server1")
    assert await reader.has_passed(await reader.mark())  # nothing lies there

    async def tell(job_id: str) -> None:
        event = pack(Begun(job_id, 1, "gpu-1"))
        await redis.xadd(events_stream("server1"), {EVENT_FIELD: event})

    for job_id in ("job1", "job2"):
        await tell(job_id)
    mark = await reader.mark()
    heard: list[str] = []
    may_go_on = asyncio.Semaphore(0)

    async def apply(event: WorkerEvent) -> None:
        await may_go_on.acquire()
        heard.append(event.job_id)

    async def on_empty() -> None: ...

    async def one_is_left() -> bool:
        return await redis.xlen(events_stream("server1")) == 1

    reading = asyncio.create_task(reader.run(apply, on_empty))
    try:
        assert not await reader.has_passed(mark)
        may_go_on.release()
        await eventually(one_is_left)
        assert not await reader.has_passed(mark)
        await asyncio.sleep(0.01)  # so that the next one lies behind the mark
        await tell("job3")
        may_go_on.release()
        may_go_on.release()
        await eventually(lambda: reader.has_passed(mark))
    finally:
        reading.cancel()
        await asyncio.wait({reading})
    assert heard[:2] == ["job1", "job2"]


async def test_a_redis_that_was_flushed_is_noticed_without_an_error(redis: Redis):
    reader = EventReader(redis, "server1")
    assert await reader.look_at_epoch()
    assert not await reader.look_at_epoch()
    await redis.flushall()
    assert await reader.look_at_epoch()


async def test_a_task_names_where_the_loras_of_its_picture_are_to_be_had(
    redis: Redis, redis_url: str, worker: HandWorker, shapes: ModelManifest
):
    file = ModelFile("neon.safetensors", 9, "a" * 64, ("https://example.org/neon",))
    known = {"a" * 64: file}
    dispatcher = CeleryDispatcher(
        redis,
        redis_url,
        "server1",
        lambda sha256s: [known[sha256] for sha256 in sha256s if sha256 in known],
    )
    loras = (Lora("neon", "a" * 64, 0.8), Lora("forgotten", "b" * 64, 1.0))
    spec = msgspec.structs.replace(SPEC, loras=loras)
    job = msgspec.structs.replace(dispatched("job1"), spec=spec, fingerprint=shapes.fingerprint)
    try:
        await dispatcher.send([job])
        task = await asyncio.to_thread(worker.take)
    finally:
        await dispatcher.close()
    assert (task.spec, task.loras) == (spec, (file,))
