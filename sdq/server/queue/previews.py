"""Who wants to see a picture while it is drawn: workers are told, and told again while it lasts.

::

    a request waits, with preview ──▶ wishes ──flag in Redis──▶ worker
    its terminal  ◀── progress with a small JPEG ◀── progress stream ──┘

Lives in memory: whoever reconnects asks again. A flag that nobody renews runs out by itself.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from sdq.broker import PREVIEW_FLAG_SECONDS
from sdq.errors import StackError
from sdq.protocol.constants import MAX_PREVIEW_BYTES
from sdq.server.queue.trouble import Trouble

RENEW_SECONDS = PREVIEW_FLAG_SECONDS / 3
MAX_FLAGS = 1_000
"""Told at once; more than that are never in the workers' hands of one server."""

MAX_BEHIND_BYTES = 64 * 1024
"""A reader with more than this in its outbox gets no previews until it has caught up: an old one
is worth nothing, and they would delay its pictures."""

log = logging.getLogger(__name__)


class PreviewWishes:
    """By job, how many of those who wait want to see it. Only jobs that a worker has, or is about
    to be given, cost anything in Redis."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wishes: Counter[str] = Counter()
        self._due: dict[str, None] = {}  # in the order of asking
        self._told_at: dict[str, float] = {}
        self._awake = asyncio.Event()
        self._trouble = Trouble(log, "asking workers for previews")

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._wishes

    def add(self, job_id: str) -> None:
        """One more wants to see it."""
        self._wishes[job_id] += 1

    def drop(self, job_id: str) -> None:
        """One less."""
        self._wishes[job_id] -= 1
        if self._wishes[job_id] <= 0:
            self.end(job_id)

    def end(self, job_id: str) -> None:
        """Nobody waits for it any more."""
        for known in (self._wishes, self._due, self._told_at):
            known.pop(job_id, None)

    def given_out(self, job_ids: Iterable[str]) -> None:
        """Workers have these jobs, or will in a moment: those that are wished for are told them."""
        new = [job_id for job_id in job_ids if job_id in self._wishes]
        if new:
            self._due.update(dict.fromkeys(new))
            self._awake.set()

    def take_due(self) -> list[str]:
        """The jobs whose flags are to be set now, and are taken to be set: at most `MAX_FLAGS`."""
        now = self._clock()
        due = dict(self._due)
        due.update((one, None) for one, at in self._told_at.items() if now - at >= RENEW_SECONDS)
        taken = list(due)[:MAX_FLAGS]
        for job_id in taken:
            self._due.pop(job_id, None)
            self._told_at[job_id] = now
        return taken

    async def run(self, show: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        """Never returns. ``show`` sets flags; when Redis is away, they are set at the next turn."""
        while True:
            try:
                if due := self.take_due():
                    await show(due)
            except StackError as error:
                self._trouble.met(error)
            except Exception as error:  # noqa: BLE001 - previews must not end the server
                self._trouble.met(error, is_defect=True)
            else:
                self._trouble.over()
            await self._rest()

    async def _rest(self) -> None:
        """Until somebody asks, or the flags are to be renewed. With no wishes it just sleeps."""
        if not self._due:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS if self._told_at else None):
                    await self._awake.wait()
        self._awake.clear()


def sound_preview(data: bytes) -> bytes:
    """What of a worker's preview is passed on: all of it, or nothing when it is none.

    Looks at length, beginning and end (JPEG, ITU-T T.81, annex B): the server decodes no picture.
    """
    is_jpeg = data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9"
    return data if is_jpeg and len(data) <= MAX_PREVIEW_BYTES else b""
