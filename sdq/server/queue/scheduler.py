"""From the table to Redis: the windows of all models kept full, and those who wait told why.

The table is the queue. Redis holds only a small window of each model, enough to keep every
worker busy, so that order and cancelling stay in the server's hands.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sdq.broker import HEARTBEAT_TIMEOUT_SECONDS
from sdq.errors import StackError, UnknownModel
from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.queue.dispatch import Dispatcher, RedisGone
from sdq.server.queue.events import Ears
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.recovery import MAX_LOOKED_AT, Recovery
from sdq.server.queue.roster import Roster
from sdq.server.queue.speeds import News
from sdq.server.queue.subscriptions import Subscriptions
from sdq.server.queue.trouble import Trouble
from sdq.server.queue.turns import Turns
from sdq.server.queue.waiting import Waiting

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
LATE_SECONDS = 4.0
"""A tick that took longer: the server, or Redis, was stopped, and heartbeats may have expired
unheard. Less than a heartbeat's time-out without its interval."""

MAX_TOLD_JOBS = 500
"""So many jobs that somebody waits for hear their position each second."""

_ROW_DAMAGED = "the job's row in the server's table is damaged, or gone"
_REPAIR = "ask again; stop the server and run `sdq server check --repair`"


class Scheduler:
    """Runs until cancelled; `wake` makes it look at once. ``clock``: seconds of our own."""

    def __init__(
        self,
        table: JobTable,
        turns: Turns,
        dispatcher: Dispatcher,
        roster: Roster,
        catalog: Catalog,
        recovery: Recovery,
        waiting: Waiting,
        subscriptions: Subscriptions,
        news: News,
        ears: Ears,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._turns = turns
        self._dispatcher = dispatcher
        self._roster = roster
        self._catalog = catalog
        self._recovery = recovery
        self._waiting = waiting
        self._subscriptions = subscriptions
        self._news = news
        self._ears = ears
        self._clock = clock
        self._awake = asyncio.Event()
        self._roster_counts_from = 0.0  # until then a missing heartbeat proves nothing
        self._ticked_at: float | None = None
        self._redis_is_away = False
        self._sending: set[str] = set()
        self._must_take_back = False  # it was begun, and could not be written down
        self._dispatch_trouble = Trouble(log, "giving jobs to workers")
        self._look_trouble = Trouble(log, "looking for lost jobs")
        self._tell_trouble = Trouble(log, "telling those who wait")

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
                self._dispatch_trouble.met(error)
            except Exception as error:  # noqa: BLE001 - must not end the server; `watch` wakes us
                self._dispatch_trouble.met(error, is_defect=True)
            else:
                self._dispatch_trouble.over()

    async def watch(self, redis: "Redis") -> None:
        """Every second: who is online, what was lost, what to tell those who wait."""
        self._trust_roster_later()  # the server was away, and perhaps Redis with it
        await self._meet_running()
        while True:
            await self._look(redis)
            await self._tell()
            self.wake()
            await asyncio.sleep(TICK_SECONDS)

    async def _look(self, redis: "Redis") -> None:
        try:
            if await self._ears.look_at_epoch() or self._must_take_back:
                await self.take_back()
            if await self._roster.refresh(redis):
                self.wake()
            self._redis_is_away = False
            await self.recover()
        except (RedisError, OSError, RedisGone):  # the event reader says so
            self._redis_is_away = True
            self._trust_roster_later()
        except StackError as error:
            self._look_trouble.met(error)
        except Exception as error:  # noqa: BLE001 - a defect at one job must not end the server
            self._look_trouble.met(error, is_defect=True)
        else:
            self._look_trouble.over()

    async def _tell(self) -> None:
        try:
            await self.tell_waiting()
        except StackError as error:
            self._tell_trouble.met(error)
        except Exception as error:  # noqa: BLE001 - as above
            self._tell_trouble.met(error, is_defect=True)
        else:
            self._tell_trouble.over()

    async def _meet_running(self) -> None:
        """Steps of jobs that were begun before this start are news of jobs that we know."""
        try:
            for job in await self._table.in_state([JobState.RUNNING], MAX_LOOKED_AT):
                self._news.begun(job)
        except StackError as error:
            log.error("%s", error)

    async def recover(self) -> None:
        """One look for lost jobs. Who is not heard counts as gone only after a while."""
        now = self._clock()
        if self._ticked_at is not None and now - self._ticked_at > LATE_SECONDS:
            self._trust_roster_later()
        self._ticked_at = now
        absence_counts = now >= self._roster_counts_from
        if await self._recovery.look(self._sending, absence_counts=absence_counts):
            self.wake()

    def _trust_roster_later(self) -> None:
        """Workers need a moment to be heard of again."""
        self._roster_counts_from = self._clock() + HEARTBEAT_TIMEOUT_SECONDS
        self._recovery.start_over()

    async def take_back(self) -> None:
        """Redis came back empty: what it held is queued again; tried until it is written down."""
        self._trust_roster_later()  # their heartbeats are forgotten too
        try:
            await self._recovery.after_empty_redis()
        except BaseException:  # also when cancelled: it is still to be done
            self._must_take_back = True
            raise
        self._must_take_back = False
        self.wake()

    # ------------------------------------------------------------ to Redis

    async def dispatch(self) -> None:
        """Fills the window of every model. Raises `RedisGone`: the jobs wait again.

        Raises other `StackError`s when it has tried all models.
        """
        trouble: StackError | None = None
        for model_id in await self._table.queued_models():
            try:
                room = await self._room(model_id)
                jobs = await self._turns.dispatch_next(model_id, room) if room > 0 else []
            except StackError as error:  # the other models' rows may be sound
                trouble = trouble or error
                continue
            if jobs:
                await self._send(jobs)
        if trouble is not None:
            raise trouble

    async def _send(self, jobs: list[Job]) -> None:
        """Some may have arrived when Redis goes away: sent again they have a higher attempt."""
        ids = {job.job_id for job in jobs}
        self._sending |= ids
        self._subscriptions.wishes.given_out(ids)
        try:
            await self._dispatcher.send(jobs)
        except RedisGone:
            await self._table.take_back(list(ids))
            raise
        finally:
            self._sending -= ids
        for job in jobs:
            for subscription in self._subscriptions.of(job.job_id):
                subscription.progress(JobState.DISPATCHED)

    async def _room(self, model_id: str) -> int:
        try:
            fingerprint = self._catalog.manifest(model_id).fingerprint
        except UnknownModel:
            return 0  # taken out of the catalog: its jobs wait until it is back
        window = self._roster.window(model_id, fingerprint)
        if not window:
            return 0
        counts = await self._table.counts_of(model_id)
        return window - counts[JobState.DISPATCHED] - counts[JobState.RUNNING]

    # ------------------------------------------------------------ to those who wait

    async def tell_waiting(self) -> None:
        """Position, time and reason for those whose jobs have not begun."""
        ids = self._subscriptions.job_ids(MAX_TOLD_JOBS)
        if not ids:
            return
        states = (JobState.QUEUED, JobState.DISPATCHED)
        found = await self._table.get_many(ids)
        for job_id in set(ids) - found.keys():
            self._subscriptions.fail(job_id, StackError.code, _ROW_DAMAGED, _REPAIR)
        jobs = [job for job in found.values() if job.state in states]
        whys = await self._waiting.explain(jobs)
        for job in jobs:
            why = whys.get(job.job_id)
            if why is None or self._news.is_running(job.job_id):
                continue  # it was given out or begun while we looked
            for subscription in self._subscriptions.of(job.job_id):
                subscription.progress(
                    job.state, ahead=why.ahead, note=why.note, eta_seconds=why.eta_seconds
                )
