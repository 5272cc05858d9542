"""What the server would make of lines, asked for many at once and before anything is drawn."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import msgspec

from sdq.cli.batch.columns import BadLine, BatchLine
from sdq.cli.batch.lines import AnyLine, Lines
from sdq.client.checks import check_count, check_draft
from sdq.client.client import Client
from sdq.client.losses import may_pass
from sdq.errors import SdqError, from_code
from sdq.protocol.constants import MAX_INTENTS_AT_ONCE, MAX_JOBS_AT_ONCE
from sdq.protocol.job_messages import Intent, Outlook
from sdq.protocol.messages import Limits

MAX_READ_AHEAD = MAX_INTENTS_AT_ONCE
_PAUSE_SECONDS = 0.5
_BYTES_BESIDE = 1_000
"""Of a line in a message, all but its two prompts."""


class PlannedLine(msgspec.Struct, frozen=True):
    """A line and its pictures, each with spec and key. ``first_n``: the number, from 1, of its
    first picture among all of the file."""

    line: BatchLine
    first_n: int
    outlook: Outlook


class Patience:
    """How long a server that was lost is looked for, and whom to tell. 0: not at all."""

    def __init__(
        self,
        seconds: float = 0.0,
        *,
        lost: Callable[[], None] = lambda: None,
        found: Callable[[], None] = lambda: None,
    ) -> None:
        self._seconds = seconds
        self._lost = lost
        self._found = found

    async def foresee(self, client: Client, intents: list[Intent]) -> Iterator[Outlook]:
        """What the server answers, as soon as there is one. Raises `ConnectionFailed`."""
        until: float | None = None
        while True:
            try:
                outlooks = await client.foresee(intents) if intents else ()
            except SdqError as error:
                now = time.monotonic()
                until = now + self._seconds if until is None else until
                if not may_pass(error) or now >= until:
                    raise
                self._lost()
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                if until is not None:
                    self._found()
                return iter(outlooks)


async def planned(
    client: Client, lines: Lines, patience: Patience | None = None
) -> AsyncGenerator[PlannedLine | BadLine, None]:
    """Each line in its order, as the server sees it now. Whoever reads slowly is not run away
    from. Raises what reading and asking raise; safe to cancel."""
    patience = patience or Patience()
    first_n = 1
    async with aclosing(_chunks(lines, client.welcome.limits)) as chunks:
        async for chunk in chunks:
            good = [line for line in chunk if isinstance(line, BatchLine)]
            intents = [Intent(line.draft, line.count) for line in good]
            outlooks = await patience.foresee(client, intents)
            for line in chunk:
                if isinstance(line, BatchLine):
                    yield _with(line, first_n, next(outlooks))
                else:
                    yield line
                first_n += line.count


def _with(line: BatchLine, first_n: int, outlook: Outlook) -> PlannedLine | BadLine:
    if not outlook.code:
        return PlannedLine(line, first_n, outlook)
    error = from_code(outlook.code, outlook.message, outlook.hint)
    return BadLine(line.number, error, line.raw, line.count)


async def _chunks(lines: Lines, limits: Limits) -> AsyncGenerator[list[AnyLine], None]:
    """As many lines as there are at the moment, and as fit into one question."""
    queue: asyncio.Queue[AnyLine | None] = asyncio.Queue(MAX_READ_AHEAD)
    reading = asyncio.create_task(_read(lines, queue, limits), name="sdq batch: reading")
    try:
        chunk = _Chunk(limits)
        while (line := await queue.get()) is not None:
            if not chunk.has_room_for(line):
                yield chunk.taken()
            chunk.add(line)
            if queue.empty():
                yield chunk.taken()
        if chunk.lines:
            yield chunk.taken()
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(lines: Lines, queue: asyncio.Queue[AnyLine | None], limits: Limits) -> None:
    try:
        async with aclosing(lines):
            async for line in lines:
                await queue.put(_checked(line, limits))
    finally:
        if not _is_cancelled():  # whoever waits for lines must hear of the end, a bad one too
            await queue.put(None)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _checked(line: AnyLine, limits: Limits) -> AnyLine:
    """What no server would take is refused here, without spoiling the question about others."""
    if isinstance(line, BadLine):
        return line
    try:
        check_draft(line.draft, limits)
        check_count(line.count, 0, limits)
    except SdqError as error:
        return BadLine(line.number, error, line.raw, line.count)
    return line


class _Chunk:
    def __init__(self, limits: Limits) -> None:
        self.lines: list[AnyLine] = []
        self._max_bytes = limits.max_request_bytes // 2
        self._pictures = 0
        self._bytes = 0

    def has_room_for(self, line: AnyLine) -> bool:
        return not self.lines or (
            len(self.lines) < MAX_INTENTS_AT_ONCE
            and self._pictures + line.count <= MAX_JOBS_AT_ONCE
            and self._bytes + _size_bytes(line) <= self._max_bytes
        )

    def add(self, line: AnyLine) -> None:
        self.lines.append(line)
        self._pictures += line.count
        self._bytes += _size_bytes(line)

    def taken(self) -> list[AnyLine]:
        lines, self.lines, self._pictures, self._bytes = self.lines, [], 0, 0
        return lines


def _size_bytes(line: AnyLine) -> int:
    if isinstance(line, BadLine):
        return 0
    texts = line.draft.prompt, line.draft.negative_prompt
    return _BYTES_BESIDE + sum(len(text.encode("utf-8", "replace")) for text in texts)
