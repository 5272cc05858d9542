"""Reading what workers say: nothing is deleted before it is written down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ResponseError

from sdq.broker import (
    EVENT_FIELD,
    Begun,
    WorkerEvent,
    epoch_key,
    events_stream,
    pack,
    progress_stream,
)
from sdq.errors import StackError
from sdq.server.queue.events import MAX_ASIDE, MAX_TRIES, EventReader
from sdq.server.queue.redis_link import connect

BEGUN = Begun("job1", 1, "worker-1")
Apply = Callable[[WorkerEvent], Awaitable[None]]


class OneEvent:
    """As much of a Redis as the reader asks for; its events stream holds one entry."""

    def __init__(self) -> None:
        self.deleted = asyncio.Event()
        self.epoch = True
        self.milliseconds = 1

    async def set(self, name: str, value: bytes, *, nx: bool) -> bool | None:
        was_there, self.epoch = self.epoch, True
        return None if was_there else True

    async def time(self) -> tuple[int, int]:
        return divmod(self.milliseconds * 1_000, 1_000_000)

    async def xlen(self, name: str) -> int:
        return 0 if self.deleted.is_set() else 1

    async def xrevrange(self, name: str, *, count: int) -> list[Any]:
        return []

    async def xread(self, cursors: dict[str, Any], *, count: int, block: int) -> list[Any]:
        name = events_stream("server1")
        if self.deleted.is_set():
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if cursors[name] != "0":
            return []
        return [(name.encode(), [(b"1-0", {EVENT_FIELD: pack(BEGUN)})])]

    async def xdel(self, name: str, entry_id: bytes) -> None:
        self.deleted.set()


async def not_empty() -> None:
    raise AssertionError("it is not empty")


@asynccontextmanager
async def reading(reader: EventReader, apply: Apply) -> AsyncIterator[None]:
    task = asyncio.create_task(reader.run(apply, not_empty))
    try:
        async with asyncio.timeout(5):
            yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdq.server.queue.events.RETRY_SECONDS", (0.0,))
    monkeypatch.setattr("sdq.server.queue.events.ASIDE_SECONDS", 0.0)


async def test_an_event_that_finds_the_disk_full_is_read_again():
    redis, heard = OneEvent(), list[WorkerEvent]()

    async def apply(event: WorkerEvent) -> None:
        heard.append(event)
        assert not redis.deleted.is_set()
        if len(heard) <= MAX_TRIES + 2:  # longer than we are patient with our own defects
            raise StackError("the disk is full")

    async with reading(EventReader(redis, "server1"), apply):  # type: ignore[arg-type]
        await redis.deleted.wait()
    assert heard == [BEGUN] * (MAX_TRIES + 3)


async def test_a_defect_of_ours_is_tried_three_times_and_does_not_end_the_reader(
    caplog: pytest.LogCaptureFixture,
):
    redis, heard = OneEvent(), list[WorkerEvent]()

    async def apply(event: WorkerEvent) -> None:
        heard.append(event)
        raise KeyError("a defect")

    async with reading(EventReader(redis, "server1"), apply):  # type: ignore[arg-type]
        await redis.deleted.wait()
    assert heard == [BEGUN] * MAX_TRIES
    assert "KeyError: 'a defect'" in caplog.text  # with its traceback
    assert "job job1: what its worker said is dropped" in caplog.text


async def test_a_defect_that_passes_drops_nothing():
    redis, heard = OneEvent(), list[WorkerEvent]()

    async def apply(event: WorkerEvent) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise KeyError("only once")

    async with reading(EventReader(redis, "server1"), apply):  # type: ignore[arg-type]
        await redis.deleted.wait()
    assert heard == [BEGUN] * 2


async def test_a_mark_is_passed_when_what_lay_before_it_is_committed():
    redis, may_end = OneEvent(), asyncio.Event()
    reader = EventReader(redis, "server1")  # type: ignore[arg-type]
    mark = await reader.mark()

    async def apply(event: WorkerEvent) -> None:
        await may_end.wait()

    async with reading(reader, apply):
        await asyncio.sleep(0)
        assert not await reader.has_passed(mark)
        may_end.set()
        await redis.deleted.wait()
    assert await reader.has_passed(mark)


async def test_a_redis_that_forgot_everything_is_noticed_once():
    redis = OneEvent()
    reader = EventReader(redis, "server1")  # type: ignore[arg-type]
    assert not await reader.look_at_epoch()
    redis.epoch = False
    assert await reader.look_at_epoch()
    assert not await reader.look_at_epoch()


# ---------------------------------------------------------------- a real Redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    redis = connect(redis_url)
    yield redis
    await redis.config_set("maxmemory", 0)
    await redis.delete(epoch_key("server1"), events_stream("server1"), progress_stream("server1"))
    await redis.aclose()


async def put(redis: Any, *job_ids: str) -> None:
    for job_id in job_ids:
        event = Begun(job_id, 1, "worker-1")
        await redis.xadd(events_stream("server1"), {EVENT_FIELD: pack(event)})


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.01)


class Page:
    """Where jobs are written down; those in ``damaged`` cannot be."""

    def __init__(self, *damaged: str) -> None:
        self.damaged = set(damaged)
        self.written: list[str] = []
        self.tries = 0

    async def apply(self, event: WorkerEvent) -> None:
        if event.job_id in self.damaged:
            self.tries += 1
            raise StackError("the file is damaged")
        self.written.append(event.job_id)


async def nothing() -> None:
    pass


@asynccontextmanager
async def reading_from(redis: Any, page: Page) -> AsyncIterator[EventReader]:
    reader = EventReader(redis, "server1")
    task = asyncio.create_task(reader.run(page.apply, nothing))
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_an_event_of_a_damaged_page_holds_up_no_other_one(
    redis: Any, caplog: pytest.LogCaptureFixture
):
    await put(redis, "job1", "job2", "job3")
    page = Page("job1")
    async with reading_from(redis, page) as reader:

        async def others_are_written() -> bool:
            return page.written == ["job2", "job3"] and page.tries > 3 * MAX_TRIES

        await until(others_are_written)
        assert await redis.xlen(events_stream("server1")) == 1  # it is kept
        mark = await reader.mark()
        assert await reader.has_passed(mark)  # nothing else is to come: recovery goes on
        assert caplog.text.count("the file is damaged") == 1
        page.damaged.clear()

        async def it_is_written() -> bool:
            return page.written == ["job2", "job3", "job1"]

        await until(it_is_written)

        async def it_is_gone() -> bool:
            return not await redis.xlen(events_stream("server1"))

        await until(it_is_gone)
    assert page.written == ["job2", "job3", "job1"]


async def test_only_so_many_events_are_set_aside(redis: Any):
    names = [f"job{number}" for number in range(MAX_ASIDE + 1)]
    await put(redis, *names, "good")
    page = Page(*names)
    async with reading_from(redis, page) as reader:

        async def has_tried_them_all() -> bool:
            return page.tries > MAX_TRIES * (len(names) + 5)

        await until(has_tried_them_all)
        assert page.written == []  # the disk as a whole is to blame: all wait
        page.damaged.clear()

        async def all_are_written() -> bool:
            return set(page.written) == {*names, "good"}

        await until(all_are_written)
        assert not reader.trouble


async def test_a_redis_that_is_full_is_read_empty(redis: Any, caplog: pytest.LogCaptureFixture):
    """Its pictures are what fills it: a server that starts then must not wait for room."""
    await put(redis, "job1", "job2")
    await redis.config_set("maxmemory", 1)
    with pytest.raises(ResponseError):
        await redis.set("anything", 1)
    page = Page()
    async with reading_from(redis, page) as reader:

        async def both_are_written() -> bool:
            return page.written == ["job1", "job2"]

        await until(both_are_written)
        assert "stores nothing" in reader.trouble
        await redis.config_set("maxmemory", 0)
        assert await reader.look_at_epoch()
        assert reader.trouble == ""
