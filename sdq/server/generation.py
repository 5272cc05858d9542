"""`Generate` and `Cancel`: the library first, then the table, then patience."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from sdq.errors import (
    InvalidSpec,
    NobodyCanDoIt,
    NotInLibrary,
    SdqError,
)
from sdq.protocol.job_messages import PlannedPicture
from sdq.protocol.messages import (
    Accepted,
    CachePolicy,
    Generate,
    Origin,
)
from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.dispatch import Dispatcher, RedisGone
from sdq.server.job import Job, NewJob
from sdq.server.jobs import JobTable
from sdq.server.library import Library, StoredImage
from sdq.server.roster import Roster
from sdq.server.scheduler import Scheduler
from sdq.server.subscriptions import Peer, Request, Subscriptions
from sdq.spec import ImageSpec, SpecDraft, key_of, seed_at

log = logging.getLogger(__name__)

MAX_REMEMBERED_PICTURES = 4_096
"""In the plans that are kept in memory; each takes half a KiB and its part of a prompt."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One picture of a request, before anybody looked whether it exists."""

    index: int
    spec: ImageSpec
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    fingerprint: str
    wishes: tuple[Wish, ...]


class Generation:
    """Turns requests into pictures. One for the server."""

    def __init__(
        self,
        catalog: Catalog,
        library: Library,
        table: JobTable,
        dispatcher: Dispatcher,
        roster: Roster,
        scheduler: Scheduler,
        subscriptions: Subscriptions,
        *,
        max_count: int,
        max_queued_jobs: int,
    ) -> None:
        self._catalog = catalog
        self._library = library
        self._table = table
        self._dispatcher = dispatcher
        self._roster = roster
        self._scheduler = scheduler
        self._subscriptions = subscriptions
        self._max_count = max_count
        self._max_queued_jobs = max_queued_jobs
        self._plans: OrderedDict[tuple[SpecDraft, int, int], Plan] = OrderedDict()
        self._remembered_pictures = 0

    # ------------------------------------------------------------ what is asked for

    def plan(self, message: Generate) -> Plan:
        """The specs and keys of a request. Raises `UsageError` for what cannot be drawn."""
        name = (message.draft, message.count, message.first_index)
        known = self._plans.get(name)
        if known is not None:
            self._plans.move_to_end(name)
            return known
        plan = self._make_plan(message)
        self._plans[name] = plan
        self._remembered_pictures += message.count
        while self._remembered_pictures > MAX_REMEMBERED_PICTURES:
            _, oldest = self._plans.popitem(last=False)
            self._remembered_pictures -= len(oldest.wishes)
        return plan

    def _make_plan(self, message: Generate) -> Plan:
        if message.count > self._max_count:
            raise InvalidSpec(
                f"{message.count} pictures in one request, the limit is {self._max_count}",
                hint="ask in several requests",
            )
        base = self._catalog.resolve(message.draft)
        fingerprint = self._catalog.manifest(base.model).fingerprint
        wishes = []
        for index in range(message.first_index, message.first_index + message.count):
            seed = seed_at(base, message.draft.seed, index)
            spec = msgspec.structs.replace(base, seed=seed)
            wishes.append(Wish(index, spec, key_of(spec, fingerprint)))
        return Plan(fingerprint, tuple(wishes))

    # ------------------------------------------------------------ the quick answer

    def answer_from_memory(self, message: Generate, peer: Peer) -> bool:
        """Answers a request whose pictures are all at hand, without waiting for anything."""
        if message.cache not in (CachePolicy.PREFER, CachePolicy.ONLY):
            return False
        found = []
        for wish in self.plan(message).wishes:
            stored = self._library.cached(wish.key)
            if stored is None:
                return False
            found.append((wish, stored))
        request = Request(message.request_id, peer, remaining=len(found))
        for wish, stored in found:
            self._send_hit(request, wish, stored)
        return True

    def _send_hit(self, request: Request, wish: Wish, stored: StoredImage) -> None:
        request.give(wish.index, wish.key, wish.spec, Origin.HIT, stored.image, stored.draw_seconds)

    # ------------------------------------------------------------ the whole way

    async def generate(self, message: Generate, request: Request) -> None:
        """Answers what is in the library and subscribes the request to the rest.

        Returns when all that can be said now was said; `request.is_done` tells whether more
        is to come. Cancelling is safe: jobs that were committed go on.
        """
        plan = self.plan(message)
        hits = await self._hits(plan, message.cache)
        missing = [wish for wish in plan.wishes if wish.key not in hits]
        if request.is_cancelled:
            return
        if missing and (refusal := self._refusal(plan, message, missing)):
            for wish in missing:
                request.fail(wish.index, refusal.code, refusal.message, refusal.hint)
            missing = []
        if missing:
            await self._enlist(plan, message, request, missing, hits)
        for wish in plan.wishes:
            if wish.key in hits and not request.is_cancelled:
                await self._answer_hit(plan, message, request, wish)

    async def _hits(self, plan: Plan, cache: CachePolicy) -> set[str]:
        if cache not in (CachePolicy.PREFER, CachePolicy.ONLY):
            return set()
        return await self._library.has([wish.key for wish in plan.wishes])

    def _refusal(self, plan: Plan, message: Generate, missing: Sequence[Wish]) -> SdqError | None:
        """Why pictures that are not in the library will not be drawn."""
        if message.cache is CachePolicy.ONLY:
            return NotInLibrary(
                "the picture is not in the library",
                hint="leave out --cache only and it is drawn",
            )
        model_id = missing[0].spec.model
        if not message.wait and not self._roster.holders(model_id, plan.fingerprint):
            return NobodyCanDoIt(
                self._roster.why_waiting(model_id, plan.fingerprint, 0),
                hint="start one with `sdq worker install && sdq worker run`, "
                "or leave out --no-wait and the job waits",
            )
        return None

    async def _enlist(
        self,
        plan: Plan,
        message: Generate,
        request: Request,
        missing: Sequence[Wish],
        hits: set[str],
    ) -> None:
        """Commits jobs for what is missing, tells the client, subscribes it."""
        known, jobs = await self._add_jobs(plan, message, request, missing)
        if request.is_cancelled:  # while its jobs were being committed
            added = {job.job_id for job in jobs} - known
            await self._stop([job_id for job_id in added if not self._subscriptions.of(job_id)])
            return
        planned = {
            wish.index: PlannedPicture(wish.index, wish.key, wish.spec, origin, job.job_id)
            for wish, job in zip(missing, jobs, strict=True)
            for origin in [Origin.JOINED if job.job_id in known else Origin.MADE]
        }
        for wish in plan.wishes:
            if wish.key in hits:
                planned[wish.index] = PlannedPicture(
                    wish.index, wish.key, wish.spec, Origin.HIT, None
                )
        request.peer.send(
            Accepted(request.request_id, tuple(planned[index] for index in sorted(planned)))
        )
        for wish, job in zip(missing, jobs, strict=True):
            origin = planned[wish.index].cache
            subscription = self._subscriptions.add(request, wish.index, job, origin)
            note = self._roster.why_waiting(job.spec.model, job.fingerprint, 0)
            subscription.progress(job.state, note=note)
        self._scheduler.wake()
        if message.cache is CachePolicy.PREFER:
            await self._settle_finished([job for job in jobs if job.job_id not in known])

    async def _add_jobs(
        self, plan: Plan, message: Generate, request: Request, missing: Sequence[Wish]
    ) -> tuple[set[str], list[Job]]:
        """The jobs of the missing pictures, and which of them others had already asked for."""
        added = await self._table.add(
            [
                NewJob(
                    key=wish.key,
                    spec=wish.spec,
                    fingerprint=plan.fingerprint,
                    keep=message.cache is not CachePolicy.OFF,
                    identity=request.peer.identity,
                    priority=message.priority,
                )
                for wish in missing
            ],
            max_queued=self._max_queued_jobs,
        )
        known = {job.job_id for job, is_new in added if not is_new}
        return known, [job for job, _ in added]

    async def _settle_finished(self, jobs: Sequence[Job]) -> None:
        """A picture may have come between the look into the library and the job: the job of an
        equal request ended, so ours is a new one. What has just come is in memory."""
        came = {job.job_id: (job, self._library.cached(job.key)) for job in jobs}
        for job, stored in came.values():
            if stored is not None:
                self._subscriptions.deliver(job, stored.image, stored.draw_seconds)
        await self._stop([job.job_id for job, stored in came.values() if stored is not None])

    async def _answer_hit(
        self, plan: Plan, message: Generate, request: Request, wish: Wish
    ) -> None:
        stored = await self._library.get(wish.key)
        if request.is_cancelled:
            return
        if stored is not None:
            self._send_hit(request, wish, stored)
            await request.peer.drained()
            return
        # Its row was there, its file was not: that is a miss like any other.
        if refusal := self._refusal(plan, message, [wish]):
            request.fail(wish.index, refusal.code, refusal.message, refusal.hint)
        else:
            await self._enlist(plan, message, request, [wish], set())

    # ------------------------------------------------------------ the end of wanting

    async def cancel(self, request: Request) -> tuple[int, int]:
        """Forgets a request; jobs stopped, and jobs that go on for somebody else."""
        request.is_cancelled = True
        wanted = len({waiting.job_id for waiting in request.waiting.values()})
        orphans = self._subscriptions.drop(request)
        request.remaining = 0
        await self._stop(orphans)
        return len(orphans), wanted - len(orphans)

    async def leave(self, request: Request) -> None:
        """The client is gone. Its jobs go on: asking again finds them in the library.

        Only what would not be kept anyway is stopped.
        """
        orphans = self._subscriptions.drop(request)
        request.remaining = 0
        jobs = [await self._table.get(job_id) for job_id in orphans]
        await self._stop([job.job_id for job in jobs if job is not None and not job.keep])

    async def _begin_anew(self, cancelled: Job) -> None:
        """A job in place of one that was joined at the very moment it was cancelled."""
        again = NewJob(
            key=cancelled.key,
            spec=cancelled.spec,
            fingerprint=cancelled.fingerprint,
            keep=cancelled.keep,
            identity=cancelled.identity,
        )
        ((job, _),) = await self._table.add([again])
        self._subscriptions.move(cancelled.job_id, job.job_id)

    async def _stop(self, job_ids: Sequence[str]) -> None:
        in_redis = []
        for job_id in job_ids:
            before = await self._table.get(job_id)
            if before is None or self._subscriptions.of(job_id):
                continue  # somebody has joined it meanwhile
            if await self._table.move(job_id, JobState.CANCELLED) is None:
                continue
            if before.state is not JobState.QUEUED:
                in_redis.append(job_id)
            if self._subscriptions.of(job_id):
                await self._begin_anew(before)
        if in_redis:
            try:
                await self._dispatcher.stop(in_redis)
            except RedisGone as error:
                log.warning("cancelled jobs may be drawn in vain: %s", error)
        self._scheduler.wake()
