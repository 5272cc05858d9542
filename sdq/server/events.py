"""The way back from the workers: two Redis streams, read in order.

Also the server's ear for Redis itself: whether it answers, and whether it came back empty.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

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


class EventReader:
    """Reads until cancelled. ``apply`` returns when an event is committed."""

    def __init__(
        self,
        redis: "Redis",
        server_id: str,
        *,
        apply: Callable[[WorkerEvent], Awaitable[None]],
        on_empty: Callable[[], Awaitable[None]],
    ) -> None:
        self._redis = redis
        self._server_id = server_id
        self._apply = apply
        self._on_empty = on_empty
        self._events = events_stream(server_id)
        self._progress = progress_stream(server_id)
        self.trouble = "not connected yet"  # empty while Redis answers

    async def run(self) -> None:
        """Never returns; survives Redis being away and a full disk for as long as it takes."""
        failures = 0
        while True:
            try:
                await self._read_on()
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

    async def _read_on(self) -> None:
        await self._greet()
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
                    await self._take(stream, entry_id, fields)
                    cursors[stream] = entry_id

    async def _end_of(self, stream: str) -> bytes | str:
        """The last entry's id. ``$`` would forget what comes between two reads."""
        last = cast("list[tuple[bytes, object]]", await self._redis.xrevrange(stream, count=1))
        return last[0][0] if last else "0"

    async def _greet(self) -> None:
        """Finds out whether this Redis still holds what we gave it."""
        fresh = await self._redis.set(epoch_key(self._server_id), b"1", nx=True)
        if self.trouble:
            log.info("Redis answers%s", " and is empty" if fresh else "")
        self.trouble = ""
        if fresh:
            await self._on_empty()

    async def _take(self, stream: str, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        try:
            event = read_event(fields.get(EVENT_FIELD, b""))
        except (ProtocolError, msgspec.ValidationError) as error:
            log.warning("an event that cannot be read was dropped: %s", error)
        else:
            if (stream == self._progress) == isinstance(event, Stepped):
                await self._apply(event)
        if stream == self._events:
            await self._redis.xdel(self._events, entry_id)
