"""`Submit`: pictures become jobs, and nobody waits."""

from sdq.errors import NotInLibrary, UsageError
from sdq.protocol.job_messages import PlannedPicture, Submit, Submitted
from sdq.protocol.messages import CachePolicy, Origin
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.scheduler import Scheduler
from sdq.server.requests.enlistment import Asker, Enlistment, new_jobs
from sdq.server.requests.generation import planned_pictures
from sdq.server.requests.wishes import Planner
from sdq.server.tallies import Tallies


class Submission:
    """One for the server."""

    def __init__(
        self,
        planner: Planner,
        table: JobTable,
        enlistment: Enlistment,
        scheduler: Scheduler,
        tallies: Tallies,
    ) -> None:
        self._tallies = tallies
        self._planner = planner
        self._table = table
        self._enlistment = enlistment
        self._scheduler = scheduler

    async def submit(self, message: Submit, identity: str) -> Submitted:
        """A job for each picture, committed; those that the library answers have succeeded.

        Raises `UsageError` (``--cache off`` too: nobody could ever be given the pictures),
        `NotInLibrary` for ``--cache only``, `ServerBusy`; then no job was added. Cancelled, it
        may have added them; again it does no harm, for equal pictures are one job.
        """
        if message.cache is CachePolicy.OFF:
            raise UsageError(
                "pictures that are not kept cannot be fetched later",
                hint="leave out --cache off, or use `sdq generate`, which waits for them",
            )
        plan, asker = self._planner.plan(message), Asker(message, identity)
        hits = await self._enlistment.hits(plan, message.cache)
        missing = [wish for wish in plan.wishes if wish.key not in hits]
        if missing and message.cache is CachePolicy.ONLY:
            raise NotInLibrary(
                f"{len(missing)} of {len(plan.wishes)} pictures are not in the library",
                hint="leave out --cache only and they are drawn",
            )
        self._tallies.asked(hits=len(plan.wishes) - len(missing), misses=len(missing))
        planned: list[PlannedPicture] = []
        if missing:
            added = await self._enlistment.add(plan, asker, missing)
            planned += planned_pictures(missing, added)
            self._scheduler.wake()
            if message.cache is CachePolicy.PREFER:
                await self._enlistment.settle_finished(added)
        present = [wish for wish in plan.wishes if wish.key in hits]
        if present:
            done = await self._table.add_done(new_jobs(plan, asker, present))
            planned += [
                PlannedPicture(wish.index, wish.key, wish.spec, Origin.HIT, job.job_id)
                for wish, job in zip(present, done, strict=True)
            ]
        planned.sort(key=lambda picture: picture.index)
        return Submitted(message.request_id, tuple(planned))
