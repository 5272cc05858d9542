"""The way back from the workers: two Redis streams, read in order.

Also the server's ear for Redis itself: whether it answers, and whether it came back empty. And
it knows how far the server has listened: what looks lost may be lying in the stream unread.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sdq.broker import (
    EVENT_FIELD,
    Stepped,
    WorkerEvent,
    epoch_key,
    events_stream,
    progress_stream,
    read_event,
)
from sdq.errors import ProtocolError, StackError

log = logging.getLogger(__name__)

BLOCK_MILLISECONDS = 2_000
MAX_ENTRIES = 2
"""Entries in one read: pictures may have tens of MB, and a read holds all of its own."""

RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
MAX_TRIES = 3
"""An event at which the server itself stumbles is dropped then: its job is found by recovery."""

Apply = Callable[[WorkerEvent], Awaitable[None]]


class Ears(Protocol):
    """What recovery needs of the reader; ``sdq.testing.dispatch`` has one in memory."""

    async def mark(self) -> int:
        """The end of the event stream as it is now. Raises redis-py's errors."""

    async def has_passed(self, mark: int) -> bool:
        """Whether all events from before the mark are committed. Raises redis-py's errors."""

    async def look_at_epoch(self) -> bool:
        """Whether Redis forgot everything since the last look. Raises redis-py's errors."""


class EventReader:
    """Reads while `run` does; the other methods may be called at any time."""

    def __init__(self, redis: "Redis", server_id: str) -> None:
        self._redis = redis
        self._server_id = server_id
        self._events = events_stream(server_id)
        self._progress = progress_stream(server_id)
        self._passed = 0  # milliseconds of the last event that is committed, by Redis' clock
        self.trouble = "not connected yet"  # empty while Redis answers

    async def mark(self) -> int:
        # Entries are named by Redis' clock. Asking for the last one would fetch its picture.
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    async def has_passed(self, mark: int) -> bool:
        return self._passed > mark or await self._redis.xlen(self._events) == 0

    async def look_at_epoch(self) -> bool:
        return bool(await self._redis.set(epoch_key(self._server_id), b"1", nx=True))

    async def run(self, apply: Apply, on_empty: Callable[[], Awaitable[None]]) -> None:
        """Never returns; survives Redis being away and a full disk for as long as it takes.

        ``apply`` returns when an event is committed; ``on_empty`` is told that Redis forgot
        everything.
        """
        failures = 0
        while True:
            try:
                await self._greet(on_empty)
                await self._read_on(apply)
            except (RedisError, OSError) as error:
                if not self.trouble:  # it answered until now
                    failures = 0
                if not failures:
                    log.warning("Redis does not answer, jobs are kept: %s", error)
                self.trouble = f"does not answer: {error}"
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
            except StackError as error:
                # The event is still in its stream, and is read again once there is room.
                log.error("what a worker said cannot be written down: %s", error)
                await asyncio.sleep(RETRY_SECONDS[-1])

    async def _read_on(self, apply: Apply) -> None:
        cursors: dict[bytes | str | memoryview, Any] = {
            self._events: "0",
            self._progress: await self._end_of(self._progress),
        }
        while True:
            answer = await self._redis.xread(cursors, count=MAX_ENTRIES, block=BLOCK_MILLISECONDS)
            batches = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer)
            for raw_stream, entries in batches:
                stream = raw_stream.decode()
                for entry_id, fields in entries:
                    await self._take(stream, entry_id, fields, apply)
                    cursors[stream] = entry_id

    async def _end_of(self, stream: str) -> bytes | str:
        """The last entry's id. ``$`` would forget what comes between two reads."""
        last = cast("list[tuple[bytes, object]]", await self._redis.xrevrange(stream, count=1))
        return last[0][0] if last else "0"

    async def _greet(self, on_empty: Callable[[], Awaitable[None]]) -> None:
        """Finds out whether this Redis still holds what we gave it."""
        is_empty = await self.look_at_epoch()
        if self.trouble:
            log.info("Redis answers%s", " and is empty" if is_empty else "")
        self.trouble = ""
        if is_empty:
            await on_empty()

    async def _take(
        self, stream: str, entry_id: bytes, fields: dict[bytes, bytes], apply: Apply
    ) -> None:
        try:
            event = read_event(fields.get(EVENT_FIELD, b""))
        except (ProtocolError, msgspec.ValidationError) as error:
            log.warning("an event that cannot be read was dropped: %s", error)
        else:
            if (stream == self._progress) == isinstance(event, Stepped):
                await _try(apply, event)
        if stream == self._events:
            await self._redis.xdel(self._events, entry_id)
            self._passed = int(entry_id.partition(b"-")[0])


async def _try(apply: Apply, event: WorkerEvent) -> None:
    """A defect of ours at one event must not end the server, nor stop all others for ever.

    Redis that is away and a full disk are no defects: the caller waits for as long as it takes.
    """
    for number in range(1, MAX_TRIES + 1):
        try:
            await apply(event)
            return
        except (StackError, RedisError, OSError):
            raise
        except Exception:
            kind = type(event).__name__.lower()
            log.exception("job %s: %s, try %d: a defect in sdq", event.job_id, kind, number)
            await asyncio.sleep(RETRY_SECONDS[0])
    log.error("job %s: what its worker said is dropped", event.job_id)
