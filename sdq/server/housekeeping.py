"""What is done now and then: last-used times, retention, jobs that nobody asks about any more."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sdq.errors import StackError
from sdq.server.library.library import Library
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.trouble import Trouble

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 5.0
PRUNE_EVERY_SECONDS = 600.0
FINISHED_JOBS_SECONDS = 7 * 86_400.0
MAX_FINISHED_JOBS = 200_000
"""Beyond, the oldest are forgotten sooner; their pictures stay. Handing in what is in the library
already makes finished jobs as fast as a client can talk."""

Step = Callable[[], Awaitable[None]]


class Housekeeping:
    """Runs until cancelled. No step that fails keeps another one from its work."""

    def __init__(self, library: Library, table: JobTable) -> None:
        self._library = library
        self._table = table
        self._troubles: dict[Step, Trouble] = {
            step: Trouble(log, about)
            for step, about in (
                (self._flush, "last-used times"),
                (self._prune, "retention"),
                (self._purge, "forgetting old jobs"),
                (self._thin_out, "forgetting jobs that are too many"),
            )
        }

    async def run(self, each_time: Callable[[], None] = lambda: None) -> None:
        """``each_time`` is called at every round."""
        loop = asyncio.get_running_loop()
        next_prune = loop.time()
        while True:
            each_time()
            await self._try(self._flush)
            await self._try(self._thin_out)
            if loop.time() >= next_prune:
                next_prune = loop.time() + PRUNE_EVERY_SECONDS
                await self._try(self._prune)
                await self._try(self._purge)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def _try(self, step: Step) -> None:
        trouble = self._troubles[step]
        try:
            await step()
        except StackError as error:  # the disk is full or damaged: it is tried again
            trouble.met(error)
        except Exception as error:  # noqa: BLE001 - a defect here must not end the server
            trouble.met(error, is_defect=True)
        else:
            trouble.over()

    async def _flush(self) -> None:
        await self._library.flush_used()

    async def _prune(self) -> None:
        pictures, freed_bytes = await self._library.prune()
        if pictures:
            log.info("retention: %d pictures, %d bytes removed", pictures, freed_bytes)
        excess_bytes = (await self._library.stats()).bytes - self._library.max_bytes
        if excess_bytes > 0:
            # New pictures are stored all the same: nobody's order fails for somebody's pins.
            raise StackError(
                f"the library is {excess_bytes} bytes over its limit, for all in it is pinned; "
                "unpin some with `sdq unpin`, or raise server.library_max_bytes"
            )

    async def _purge(self) -> None:
        await self._table.purge(FINISHED_JOBS_SECONDS)

    async def _thin_out(self) -> None:
        if forgotten := await self._table.thin_out(MAX_FINISHED_JOBS):
            log.info("%d finished jobs are forgotten: there were too many", forgotten)
