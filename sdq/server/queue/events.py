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
from redis.exceptions import RedisError, ResponseError

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
"""An event at which the server itself stumbles is dropped then: its job is found by recovery. One
that cannot be written down is set aside: it stays in its stream, and the others go on."""

MAX_ASIDE = 50
"""Events set aside at once. With more of them the disk as a whole is to blame, and all wait."""

ASIDE_SECONDS = 30.0
"""Between two looks at what was set aside."""

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
        self._aside: set[bytes] = set()  # entries that could not be written down
        self._said = ""  # of what cannot be written down: the last complaint
        self._refusal = ""  # why Redis stores nothing: it is full, or a replica
        self._silence = "not connected yet"  # empty while Redis answers

    @property
    def trouble(self) -> str:
        """What is wrong with Redis, in words; empty when nothing is."""
        return self._silence or self._refusal

    async def mark(self) -> int:
        # Entries are named by Redis' clock. Asking for the last one would fetch its picture.
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    async def has_passed(self, mark: int) -> bool:
        unread = await self._redis.xlen(self._events) - len(self._aside)
        return self._passed > mark or unread <= 0

    async def look_at_epoch(self) -> bool:
        try:
            is_new = await self._redis.set(epoch_key(self._server_id), b"1", nx=True)
        except ResponseError as error:
            self._refusal = f"stores nothing: {error}"
            raise
        self._refusal = ""
        if is_new:  # another Redis perhaps, whose clock is another one
            self._passed = 0
            self._aside.clear()
        return bool(is_new)

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
                if not self._silence:  # it answered until now
                    failures = 0
                if not failures:
                    log.warning("Redis does not answer, jobs are kept: %s", error)
                self._silence = f"does not answer: {error}"
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
            except StackError as error:
                # The event is still in its stream, and is read again once there is room.
                self._complain(error)
                await asyncio.sleep(RETRY_SECONDS[-1])

    async def _read_on(self, apply: Apply) -> None:
        cursors: dict[bytes | str | memoryview, Any] = {
            self._events: "0",
            self._progress: await self._end_of(self._progress),
        }
        self._aside.clear()  # from the beginning: all of them are met again
        clock = asyncio.get_running_loop().time
        look_again_at = clock() + ASIDE_SECONDS
        while True:
            if clock() >= look_again_at:
                look_again_at = clock() + ASIDE_SECONDS
                if self._aside:
                    cursors[self._events] = "0"
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
        try:
            is_empty = await self.look_at_epoch()
        except ResponseError as error:
            # Full, perhaps: reading the pictures that lie in it is what makes room.
            log.warning("Redis answers, and stores nothing: %s", error)
            is_empty, self._silence = False, ""
        if self._silence:
            log.info("Redis answers%s", " and is empty" if is_empty else "")
        self._silence = ""
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
            is_ours = (stream == self._progress) == isinstance(event, Stepped)
            if is_ours and not await self._is_written(entry_id, event, apply):
                return
        if stream == self._events:
            await self._redis.xdel(self._events, entry_id)
            self._aside.discard(entry_id)
            self._passed = int(entry_id.partition(b"-")[0])

    async def _is_written(self, entry_id: bytes, event: WorkerEvent, apply: Apply) -> bool:
        """False: it is set aside. A damaged page of one job must not hold up all others.

        Raises `StackError` when too many are aside.
        """
        for number in range(MAX_TRIES):
            try:
                await _try(apply, event)
            except StackError as error:
                if entry_id in self._aside:
                    return False
                if number + 1 < MAX_TRIES:
                    await asyncio.sleep(RETRY_SECONDS[min(number, len(RETRY_SECONDS) - 1)])
                elif len(self._aside) >= MAX_ASIDE:
                    raise
                else:
                    self._complain(error)
            else:
                return True
        self._aside.add(entry_id)
        return False

    def _complain(self, error: StackError) -> None:
        """Once, as long as it is the same: it is tried for as long as it takes."""
        if str(error) != self._said:
            self._said = str(error)
            log.error("what a worker said cannot be written down, it is kept: %s", error)


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
        except Exception:  # a defect of ours: see above
            kind = type(event).__name__.lower()
            log.exception("job %s: %s, try %d: a defect in sdq", event.job_id, kind, number)
            await asyncio.sleep(RETRY_SECONDS[0])
    log.error("job %s: what its worker said is dropped", event.job_id)
