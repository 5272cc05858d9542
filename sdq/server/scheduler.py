"""From the table to Redis, and back when a worker or Redis is lost.

The table is the queue. Redis holds only a small window of each model, enough to keep every
worker busy, so that order and cancelling stay in the server's hands.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sdq.broker import HEARTBEAT_INTERVAL_SECONDS, HEARTBEAT_TIMEOUT_SECONDS, queue_of
from sdq.errors import StackError, UnknownModel
from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.dispatch import Dispatcher, RedisGone
from sdq.server.job import Job
from sdq.server.jobs import JobTable
from sdq.server.outcomes import Outcomes
from sdq.server.roster import Roster
from sdq.server.subscriptions import Subscriptions
from sdq.server.turns import Turns

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
WINDOW_FACTOR = 2
"""Jobs in Redis for each task that the workers can hold at once."""

MAX_TOLD_JOBS = 500
"""So many jobs from the front of the queue hear their position each second."""

BEGIN_TIMEOUT_SECONDS = 10.0
"""A dispatched job that is in no queue and that no worker holds after so long was lost."""


class Scheduler:
    """Runs until cancelled; `wake` makes it look at once."""

    def __init__(
        self,
        table: JobTable,
        turns: Turns,
        dispatcher: Dispatcher,
        roster: Roster,
        catalog: Catalog,
        outcomes: Outcomes,
        subscriptions: Subscriptions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._turns = turns
        self._dispatcher = dispatcher
        self._roster = roster
        self._catalog = catalog
        self._outcomes = outcomes
        self._subscriptions = subscriptions
        self._clock = clock
        self._awake = asyncio.Event()
        self._roster_counts_from = 0.0  # until then a missing heartbeat proves nothing
        self._redis_is_away = False
        self._missed: set[str] = set()

    def wake(self) -> None:
        """There may be something to dispatch."""
        self._awake.set()

    async def run(self) -> None:
        """Dispatches whenever it is woken."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            if self._redis_is_away:
                continue  # `watch` wakes us when it is back
            try:
                await self.dispatch()
            except StackError as error:  # Redis gone or disk full: the jobs stay in the table
                log.warning("%s", error)

    async def watch(self, redis: "Redis") -> None:
        """Every second: who is online, what was lost, what to tell those who wait."""
        self._trust_roster_later()  # the server was away, and perhaps Redis with it
        while True:
            try:
                if await self._roster.refresh(redis):
                    self.wake()
                self._redis_is_away = False
                if self._clock() > self._roster_counts_from:
                    await self.recover()
            except (RedisError, OSError, RedisGone):  # the event reader says so
                self._redis_is_away = True
                self._trust_roster_later()
            except StackError as error:
                log.error("%s", error)
            try:
                await self.tell_waiting()
            except StackError as error:
                log.error("%s", error)
            self.wake()
            await asyncio.sleep(TICK_SECONDS)

    def _trust_roster_later(self) -> None:
        """Workers need a moment to be heard of again."""
        self._roster_counts_from = self._clock() + HEARTBEAT_TIMEOUT_SECONDS

    async def dispatch(self) -> None:
        """Fills the window of every model. Raises `RedisGone`: the jobs wait again."""
        for model_id in await self._table.queued_models():
            room = await self._room(model_id)
            jobs = await self._turns.dispatch_next(model_id, room) if room > 0 else []
            if not jobs:
                continue
            try:
                await self._dispatcher.send(jobs)
            except RedisGone:
                await self._table.take_back([job.job_id for job in jobs])
                raise
            for job in jobs:
                for subscription in self._subscriptions.of(job.job_id):
                    subscription.progress(JobState.DISPATCHED)

    async def _room(self, model_id: str) -> int:
        try:
            fingerprint = self._catalog.manifest(model_id).fingerprint
        except UnknownModel:
            return 0  # taken out of the catalog: its jobs wait until it is back
        capacity = self._roster.capacity(model_id, fingerprint)
        return capacity * WINDOW_FACTOR - len(await self._given(model_id)) if capacity else 0

    async def _given(self, model_id: str) -> list[Job]:
        out = await self._table.in_state([JobState.DISPATCHED, JobState.RUNNING])
        return [job for job in out if job.spec.model == model_id]

    async def take_back(self) -> None:
        """Redis came back empty: what it held is queued again."""
        lost = await self._table.in_state([JobState.DISPATCHED])
        if lost:
            log.warning("Redis lost %d tasks: they are queued again", len(lost))
            await self._table.take_back([job.job_id for job in lost])
        self.wake()

    async def recover(self) -> None:
        """Takes jobs back from workers that are gone and from queues that lost them."""
        for job in await self._table.in_state([JobState.RUNNING]):
            if cause := self._why_lost(job):
                await self._outcomes.lost(job, cause)
                self.wake()
        missing = await self._missing()
        for job in missing:
            if job.job_id in self._missed:  # a task that is just being taken is missed once
                await self._outcomes.lost(job, "the task was lost on its way")
                self.wake()
        self._missed = {job.job_id for job in missing}

    async def _missing(self) -> list[Job]:
        """Dispatched jobs that should have begun, in no queue and in nobody's hands."""
        late = [
            job
            for job in await self._table.in_state([JobState.DISPATCHED])
            if self._clock() - (job.dispatched_at or 0) > BEGIN_TIMEOUT_SECONDS
            and not self._is_in_hand(job)
        ]
        waiting: set[str] = set()
        for queue in {queue_of(job.spec.model, job.fingerprint) for job in late}:
            waiting |= await self._dispatcher.waiting(queue)
        return [job for job in late if job.job_id not in waiting]

    def _why_lost(self, job: Job) -> str:
        """Why a running job's worker cannot finish it; empty when it can."""
        since = self._clock() - (job.changed_at or 0)
        worker = job.worker_id or "unknown"
        beat = self._roster.get(worker)
        if beat is None:
            return f"worker {worker} is gone" if since > HEARTBEAT_TIMEOUT_SECONDS else ""
        settled = since > 3 * HEARTBEAT_INTERVAL_SECONDS
        if settled and job.job_id not in beat.active:
            return f"worker {worker} no longer has it in hand"
        return ""

    def _is_in_hand(self, job: Job) -> bool:
        return any(job.job_id in beat.active for beat in self._roster.beats())

    async def tell_waiting(self) -> None:
        """Position and reason for those at the front whose jobs have not begun."""
        if not len(self._subscriptions):
            return
        ahead: dict[str, int] = {}
        open_states = [JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING]
        for job in await self._table.in_state(open_states, MAX_TOLD_JOBS):
            position = ahead.setdefault(job.spec.model, 0)
            ahead[job.spec.model] += 1
            if job.state is JobState.RUNNING:
                continue
            for subscription in self._subscriptions.of(job.job_id):
                note = self._roster.why_waiting(job.spec.model, job.fingerprint, position)
                subscription.progress(job.state, ahead=position, note=note)
