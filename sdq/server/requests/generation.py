"""`Generate`: the library first, then the table, then patience."""

from collections.abc import Sequence

from sdq.errors import NobodyCanDoIt, NotInLibrary, SdqError, StackError
from sdq.protocol.job_messages import PlannedPicture
from sdq.protocol.messages import Accepted, CachePolicy, Generate, Origin
from sdq.server.library.library import Library, StoredImage
from sdq.server.queue.job import Added, Job
from sdq.server.queue.roster import Roster
from sdq.server.queue.scheduler import Scheduler
from sdq.server.queue.subscriptions import Peer, Request, Subscription, Subscriptions
from sdq.server.requests.announcing import Announcer
from sdq.server.requests.cancelling import Cancelling
from sdq.server.requests.enlistment import Asker, Enlistment
from sdq.server.requests.wishes import Plan, Planner, Wish
from sdq.server.tallies import Tallies


class Generation:
    """Turns requests into pictures. One for the server."""

    def __init__(
        self,
        planner: Planner,
        library: Library,
        enlistment: Enlistment,
        cancelling: Cancelling,
        announcer: Announcer,
        roster: Roster,
        scheduler: Scheduler,
        subscriptions: Subscriptions,
        tallies: Tallies,
    ) -> None:
        self._tallies = tallies
        self._planner = planner
        self._library = library
        self._enlistment = enlistment
        self._cancelling = cancelling
        self._announcer = announcer
        self._roster = roster
        self._scheduler = scheduler
        self._subscriptions = subscriptions

    def answer_from_memory(self, message: Generate, peer: Peer) -> bool:
        """Answers a request whose pictures are all at hand, without waiting for anything."""
        if message.cache not in (CachePolicy.PREFER, CachePolicy.ONLY):
            return False
        begun = self._tallies.clock()
        found = []
        for wish in self._planner.plan(message).wishes:
            stored = self._library.cached(wish.key)
            if stored is None:
                return False
            found.append((wish, stored))
        request = Request(message.request_id, peer, remaining=len(found))
        for wish, stored in found:
            _send_hit(request, wish, stored)
        self._tallies.asked(hits=len(found), misses=0)
        self._tallies.answered(self._tallies.clock() - begun)
        return True

    async def generate(self, message: Generate, request: Request) -> None:
        """Answers what is in the library and subscribes the request to the rest.

        Returns when all that can be said now was said; `request.is_done` tells whether more
        is to come. Cancelling is safe: jobs that were committed go on.
        """
        begun = self._tallies.clock()
        plan = self._planner.plan(message)
        hits = await self._enlistment.hits(plan, message.cache)
        missing = [wish for wish in plan.wishes if wish.key not in hits]
        if request.is_cancelled:
            return
        self._tallies.asked(hits=len(plan.wishes) - len(missing), misses=len(missing))
        all_here = not missing
        if missing and (refusal := self._refusal(plan, message, missing)):
            for wish in missing:
                request.fail(wish.index, refusal.code, refusal.message, refusal.hint)
            missing = []
        if missing:
            await self._enlist(plan, message, request, missing, hits)
        for wish in plan.wishes:
            if wish.key in hits and not request.is_cancelled:
                await self._answer_hit(plan, message, request, wish)
        if all_here:
            self._tallies.answered(self._tallies.clock() - begun)

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
                self._roster.why_nobody(model_id, plan.fingerprint),
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
        identity = request.peer.identity
        added = await self._enlistment.add(plan, Asker(message, identity), missing)
        if request.is_cancelled:  # while its jobs were being committed
            job_ids = [job.job_id for job, _ in added]
            request.taken_back = await self._cancelling.release(identity, job_ids)
            return
        planned = planned_pictures(missing, added)
        planned += [
            PlannedPicture(wish.index, wish.key, wish.spec, Origin.HIT, None)
            for wish in plan.wishes
            if wish.key in hits
        ]
        planned.sort(key=lambda picture: picture.index)
        request.peer.send(Accepted(request.request_id, tuple(planned)))
        awaited = self._subscribe(request, missing, added)
        self._scheduler.wake()
        if message.cache is CachePolicy.PREFER:
            await self._enlistment.settle_finished(added)
        await self._announcer.announce(awaited)

    def _subscribe(
        self, request: Request, missing: Sequence[Wish], added: Sequence[Added]
    ) -> list[tuple[Subscription, Job]]:
        return [
            (self._subscriptions.add(request, wish.index, job, _origin_of(is_new)), job)
            for wish, (job, is_new) in zip(missing, added, strict=True)
        ]

    async def _answer_hit(
        self, plan: Plan, message: Generate, request: Request, wish: Wish
    ) -> None:
        try:
            stored = await self._library.get(wish.key)
        except StackError as error:  # the other pictures may come all the same
            if not request.is_cancelled:
                request.fail(wish.index, error.code, error.message, error.hint)
            return
        if request.is_cancelled:
            return
        if stored is not None:
            _send_hit(request, wish, stored)
            await request.peer.drained()
            return
        # Its row was there, its file was not: that is a miss like any other.
        if refusal := self._refusal(plan, message, [wish]):
            request.fail(wish.index, refusal.code, refusal.message, refusal.hint)
        else:
            await self._enlist(plan, message, request, [wish], set())


def planned_pictures(wishes: Sequence[Wish], added: Sequence[Added]) -> list[PlannedPicture]:
    """What is promised of wishes that became jobs, in their order."""
    return [
        PlannedPicture(wish.index, wish.key, wish.spec, _origin_of(is_new), job.job_id)
        for wish, (job, is_new) in zip(wishes, added, strict=True)
    ]


def _origin_of(is_new: bool) -> Origin:
    return Origin.MADE if is_new else Origin.JOINED


def _send_hit(request: Request, wish: Wish, stored: StoredImage) -> None:
    request.give(wish.index, wish.key, wish.spec, Origin.HIT, stored.image, stored.draw_seconds)
