"""The end of wanting: a request that is left, jobs that are taken back, a client that is gone.

A job is cancelled when nobody wants it and nobody waits for it. Somebody who waits without
having asked for it (`Attach`) takes it over when the last one who wanted it gives it up.
"""

import logging
from collections.abc import Sequence

from sdq.errors import Cancelled
from sdq.protocol.job_messages import CancelJobs, JobsCancelled
from sdq.protocol.states import FINAL_STATES, JobState
from sdq.server.database import finish
from sdq.server.queue.dispatch import Dispatcher, RedisGone
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.scheduler import Scheduler
from sdq.server.queue.subscriptions import Request, Subscription, Subscriptions
from sdq.server.queue.wants import Wants

log = logging.getLogger(__name__)

BATCH_JOBS = 1_000
MAX_BATCHES = 1_000
"""For one "all of mine": it ends also while more is handed in all the time."""

_WAS_CANCELLED = "the job was cancelled"
_AGAIN = "`sdq generate` with the same parameters asks for it again"


class Cancelling:
    """One for the server. What was begun is finished: being cancelled leaves nothing half done."""

    def __init__(
        self,
        table: JobTable,
        wants: Wants,
        dispatcher: Dispatcher,
        scheduler: Scheduler,
        subscriptions: Subscriptions,
    ) -> None:
        self._table = table
        self._wants = wants
        self._dispatcher = dispatcher
        self._scheduler = scheduler
        self._subscriptions = subscriptions

    async def cancel(self, request: Request) -> tuple[int, int]:
        """Ends a request; jobs stopped by that, and jobs that go on for somebody else.

        An attached request wants nothing, so that it stops nothing: 0 and 0.
        """
        request.is_cancelled = True
        dropped = self._subscriptions.drop(request)
        if request.is_attached:
            await self._stop_what_is_not_kept(dropped)
            return 0, 0
        return await self.release(request.peer.identity, [one.job_id for one in dropped])

    async def release(self, identity: str, job_ids: Sequence[str]) -> tuple[int, int]:
        """One request of this person wants these jobs no more (an id twice: twice)."""
        return await finish(self._release(identity, job_ids)) if job_ids else (0, 0)

    async def leave(self, request: Request) -> None:
        """The client is gone. Its jobs go on: asking again finds them in the library.

        Only what would not be kept anyway is stopped.
        """
        request.is_cancelled = True
        await self._stop_what_is_not_kept(self._subscriptions.drop(request))

    async def cancel_jobs(self, message: CancelJobs, identity: str) -> JobsCancelled:
        """Takes back what this person asked for, whichever request it was."""
        if message.all_mine:
            return await self._cancel_all_of(message.request_id, identity)
        ids = list(dict.fromkeys(message.job_ids))
        withdrawn, cancelled = await finish(self._withdraw(identity, ids))
        found = await self._table.get_many(ids)
        rest = [found[job_id] for job_id in ids if job_id in found and job_id not in cancelled]
        ended = {job.job_id for job in rest if job.state in FINAL_STATES}
        kept = {job.job_id for job in rest if job.job_id in withdrawn} - ended
        return JobsCancelled(
            message.request_id,
            cancelled=len(cancelled),
            kept=len(kept),
            ended=len(ended),
            foreign=len(rest) - len(kept) - len(ended),
            unknown=tuple(job_id for job_id in ids if job_id not in found),
        )

    async def cancel_other_files(self, model_id: str, fingerprint: str) -> int:
        """The catalog names other files for a model, or none: nobody can be given the pictures
        of the former ones any more. How many jobs that were."""
        cancelled = 0
        for _ in range(MAX_BATCHES):
            ids = await self._table.of_other_files(model_id, fingerprint, BATCH_JOBS)
            jobs = await self._table.move_many(ids, JobState.CANCELLED) if ids else []
            if not jobs:
                break
            why = f"the server's catalog has changed the model {model_id!r} meanwhile"
            for job in jobs:
                self._subscriptions.fail(job.job_id, Cancelled.code, why, _AGAIN)
            await self.stop_drawing(jobs)
            cancelled += len(jobs)
        return cancelled

    async def stop_unkept(self, jobs: Sequence[Job]) -> None:
        """Cancels jobs whose pictures would not be kept, and for which nobody waits."""
        await self._cancel_unwatched([job.job_id for job in jobs if not job.keep])

    async def stop_drawing(self, jobs: Sequence[Job]) -> None:
        """Tells workers that these jobs have come to their end, where one may have them."""
        given = [job for job in jobs if job.attempt]
        if given:
            try:
                await self._dispatcher.stop(given)
            except RedisGone as error:
                log.warning("cancelled jobs may be drawn in vain: %s", error)
        if jobs:
            self._scheduler.wake()

    # ------------------------------------------------------------ in several steps

    async def _release(self, identity: str, job_ids: Sequence[str]) -> tuple[int, int]:
        await self._wants.release(identity, job_ids)
        ids = list(dict.fromkeys(job_ids))
        cancelled = await self._end_unwanted(ids)
        rest = await self._table.get_many([job_id for job_id in ids if job_id not in cancelled])
        return len(cancelled), sum(job.state not in FINAL_STATES for job in rest.values())

    async def _withdraw(self, identity: str, ids: Sequence[str]) -> tuple[set[str], set[str]]:
        """What this person wanted of them, and what of it is cancelled by that."""
        withdrawn = await self._wants.withdraw(identity, ids)
        return set(withdrawn), await self._withdrawn(identity, withdrawn)

    async def _withdrawn(self, identity: str, job_ids: Sequence[str]) -> set[str]:
        for job_id in job_ids:
            self._subscriptions.fail(
                job_id, Cancelled.code, _WAS_CANCELLED, _AGAIN, identity=identity
            )
        return await self._end_unwanted(job_ids)

    async def _cancel_all_of(self, request_id: int, identity: str) -> JobsCancelled:
        cancelled = kept = 0
        for _ in range(MAX_BATCHES):
            batch, stopped = await finish(self._withdraw_some(identity))
            cancelled, kept = cancelled + len(stopped), kept + batch - len(stopped)
            if batch < BATCH_JOBS:
                break
        return JobsCancelled(request_id, cancelled=cancelled, kept=kept)

    async def _withdraw_some(self, identity: str) -> tuple[int, set[str]]:
        batch = await self._wants.withdraw_some(identity, BATCH_JOBS)
        return len(batch), await self._withdrawn(identity, batch)

    async def _end_unwanted(self, job_ids: Sequence[str]) -> set[str]:
        """After wants were given up: cancels what nobody wants; which jobs these are."""
        heirs: dict[str, list[str]] = {}
        for job_id in job_ids:
            if waiting := self._subscriptions.of(job_id):
                heirs.setdefault(waiting[0].request.peer.identity, []).append(job_id)
        for heir, inherited in heirs.items():
            await self._wants.adopt(heir, inherited)
        cancelled = await self._wants.cancel_unwanted(job_ids)
        await self._cancelled(cancelled)
        return {job.job_id for job in cancelled}

    async def _stop_what_is_not_kept(self, dropped: Sequence[Subscription]) -> None:
        await self._cancel_unwatched([one.job_id for one in dropped if not one.keep])

    async def _cancel_unwatched(self, job_ids: Sequence[str]) -> None:
        """Cancels jobs whose pictures only those can get who wait for them: nobody does."""
        alone = [job_id for job_id in job_ids if not self._subscriptions.of(job_id)]
        if alone:
            await finish(self._cancel_all(alone))

    async def _cancel_all(self, job_ids: Sequence[str]) -> None:
        await self._cancelled(await self._table.move_many(job_ids, JobState.CANCELLED))

    async def _cancelled(self, jobs: Sequence[Job]) -> None:
        """Who attached to a job in the very moment of its end is told so."""
        for job in jobs:
            self._subscriptions.fail(job.job_id, Cancelled.code, _WAS_CANCELLED, _AGAIN)
        await self.stop_drawing(jobs)
