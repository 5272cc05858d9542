"""Reading what workers say: nothing is deleted before it is written down."""

import asyncio
from typing import Any

import pytest

from sdq.broker import EVENT_FIELD, Begun, WorkerEvent, events_stream, pack
from sdq.errors import StackError
from sdq.server.events import EventReader

BEGUN = Begun("job1", 1, "worker-1")


class OneEvent:
    """As much of a Redis as the reader asks for; its events stream holds one entry."""

    def __init__(self) -> None:
        self.deleted = asyncio.Event()

    async def set(self, name: str, value: bytes, *, nx: bool) -> bool | None:
        return None

    async def xrevrange(self, name: str, *, count: int) -> list[Any]:
        return []

    async def xread(self, cursors: dict[str, Any], *, count: int, block: int) -> list[Any]:
        name = events_stream("server1")
        if cursors[name] != "0" or self.deleted.is_set():
            await asyncio.Event().wait()
        return [(name.encode(), [(b"1-0", {EVENT_FIELD: pack(BEGUN)})])]

    async def xdel(self, name: str, entry_id: bytes) -> None:
        self.deleted.set()


async def test_an_event_that_finds_the_disk_full_is_read_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sdq.server.events.RETRY_SECONDS", (0.0,))
    redis, heard = OneEvent(), list[WorkerEvent]()

    async def apply(event: WorkerEvent) -> None:
        heard.append(event)
        assert not redis.deleted.is_set()
        if len(heard) < 3:
            raise StackError("the disk is full")

    async def on_empty() -> None:
        raise AssertionError("it is not empty")

    reader = EventReader(redis, "server1", apply=apply, on_empty=on_empty)  # type: ignore[arg-type]
    reading = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(5):
            await redis.deleted.wait()
    finally:
        reading.cancel()
        await asyncio.wait({reading})
    assert heard == [BEGUN] * 3
