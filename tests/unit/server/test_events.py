"""Reading what workers say: nothing is deleted before it is written down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sdq.broker import EVENT_FIELD, Begun, WorkerEvent, events_stream, pack
from sdq.errors import StackError
from sdq.server.events import MAX_TRIES, EventReader

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
        if cursors[name] != "0" or self.deleted.is_set():
            await asyncio.Event().wait()
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
    monkeypatch.setattr("sdq.server.events.RETRY_SECONDS", (0.0,))


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
