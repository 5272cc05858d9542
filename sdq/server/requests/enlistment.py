"""From wishes to jobs: what the library has, what must be drawn, what is under way already."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from sdq.errors import Cancelled
from sdq.protocol.job_messages import Submit
from sdq.protocol.messages import CachePolicy, Generate
from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.database import finish
from sdq.server.library.library import Library
from sdq.server.queue.job import Added, NewJob
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.subscriptions import Subscriptions
from sdq.server.requests.cancelling import Cancelling
from sdq.server.requests.wishes import Plan, Wish


class Asker(NamedTuple):
    """The request behind wishes: what it asks for, and whose it is."""

    message: Generate | Submit
    identity: str


class Enlistment:
    """What `Generate` and `Submit` have in common."""

    def __init__(
        self,
        table: JobTable,
        library: Library,
        subscriptions: Subscriptions,
        cancelling: Cancelling,
        catalog: Catalog,
        *,
        max_queued_jobs: int,
    ) -> None:
        self._table = table
        self._library = library
        self._subscriptions = subscriptions
        self._cancelling = cancelling
        self._catalog = catalog
        self._max_queued_jobs = max_queued_jobs

    async def hits(self, plan: Plan, cache: CachePolicy) -> set[str]:
        """The keys of the pictures that the library answers."""
        if cache not in (CachePolicy.PREFER, CachePolicy.ONLY):
            return set()
        return await self._library.has([wish.key for wish in plan.wishes])

    async def add(self, plan: Plan, asker: Asker, wishes: Sequence[Wish]) -> list[Added]:
        """Commits a job for each wish. Raises `ServerBusy`: none of them is there then; `Cancelled`
        when the catalog has changed the model since the plan was made: none of them is left.

        Cancelled during the commit, it waits for it: jobs that are not kept are stopped again,
        the others go on.
        """
        orders = new_jobs(plan, asker, wishes)
        adding = asyncio.ensure_future(self._table.add(orders, max_queued=self._max_queued_jobs))
        try:
            added = await finish(adding)
        except asyncio.CancelledError:
            if not adding.cancelled() and adding.exception() is None:
                jobs = [job for job, _ in adding.result()]
                await finish(self._cancelling.stop_unkept(jobs))
            raise
        await self._check_files(wishes[0].spec.model, plan.fingerprint)
        return added

    async def _check_files(self, model_id: str, fingerprint: str) -> None:
        """Who changed the catalog looked for jobs to cancel, perhaps before ours were committed:
        they would wait for ever. Without waiting when nothing changed, so that the caller can
        subscribe to the jobs before anybody else acts."""
        now = self._catalog.fingerprints().get(model_id, "")
        if now == fingerprint:
            return
        await finish(self._cancelling.cancel_other_files(model_id, now))
        raise Cancelled(
            f"the server's catalog has changed the model {model_id!r} meanwhile",
            hint="ask again: the same parameters may mean another picture now",
        )

    async def settle_finished(self, added: Sequence[Added]) -> None:
        """A picture may have come between the look into the library and the job: the job of an
        equal request ended, so ours is a new one. What has just come is in memory."""
        came = {
            job.job_id: (job, stored)
            for job, is_new in added
            if is_new and (stored := self._library.cached(job.key)) is not None
        }
        if not came:
            return
        moved = await self._table.move_many(list(came), JobState.SUCCEEDED)
        for job, stored in came.values():
            self._subscriptions.deliver(job, stored.image, stored.draw_seconds)
        await self._cancelling.stop_drawing(moved)


def new_jobs(plan: Plan, asker: Asker, wishes: Sequence[Wish]) -> list[NewJob]:
    """Rows for wishes, in their order."""
    return [
        NewJob(
            key=wish.key,
            spec=wish.spec,
            fingerprint=plan.fingerprint,
            keep=asker.message.cache is not CachePolicy.OFF,
            identity=asker.identity,
            priority=asker.message.priority,
        )
        for wish in wishes
    ]
