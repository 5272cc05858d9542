"""Jobs that were given out and will not come back by themselves: found, and queued again.

A look compares three things: the table (what was given out), the heartbeats (who has what in
hand) and the queues in Redis (what nobody has taken). Nothing is done on a mere suspicion. It is
acted on when the event reader has passed the end of the event stream as it was when the suspicion
arose: the picture may have been lying there unread.

=======================================  ===========================  ======================
what is seen                             when it is certain           what follows
=======================================  ===========================  ======================
running, its worker's heartbeat lapsed   at once                      a death is counted
running, its worker has it no more       in two heartbeats            a death is counted
running, no step for too long            see `patience_seconds`       a failure is counted
in hand of a worker that is gone or      at once                      queued again
has it no more
in hand, its worker says nothing         see `patience_seconds`       queued again
in no queue and in nobody's hand         all who may have taken it    queued again
                                         have beaten twice since
=======================================  ===========================  ======================

Everything here is memory: after a restart of the server it is seen anew.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sdq.broker import Heartbeat, queue_of
from sdq.protocol.states import JobState
from sdq.server.queue.dispatch import Dispatcher, RedisGone
from sdq.server.queue.events import Ears
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.outcomes import Outcomes
from sdq.server.queue.roster import Roster
from sdq.server.queue.speeds import News, Speeds

log = logging.getLogger(__name__)

MAX_LOOKED_AT = 2_000
"""Given out jobs in one look, the oldest: the windows of some hundred workers."""

PATIENCE_SECONDS = 30.0
"""Beside the steps: decoding, encoding and sending of a large picture make no step."""

PATIENCE_STEPS = 30
"""So many steps of the measured time without a step: a busy machine is slower, but not that."""

UNMEASURED_PATIENCE_SECONDS = 600.0
"""Before a worker's first picture, and while a model comes into memory: a large one on a slow
device, the first time."""

MISSING_SECONDS = 3.0
"""More than a heartbeat: a task that is just being taken is in no queue and in no hand."""

MISSING_BEATS = 2
"""The first heartbeat after a look may have been made up just before it."""


class Verdict(Enum):
    TAKE_BACK = "nobody is to blame"
    STOP = "nobody is to blame, but it must be stopped where it is"
    DIED = "its worker died"
    FAILED = "its worker does not get on with it"


@dataclass
class _Trail:
    """What the looks so far have seen of one attempt."""

    attempt: int
    state: JobState
    looks: int = 0
    holder: str = ""  # who had it in hand, not begun
    held_since: float = 0.0
    missing_since: float | None = None
    beats_then: dict[str, int] = field(default_factory=dict)  # when it was first missing
    mark: int | None = None  # the end of the event stream when it was first suspected


class Recovery:
    """Looks when it is told to, once a second. ``clock``: seconds, the one of the roster."""

    def __init__(
        self,
        table: JobTable,
        outcomes: Outcomes,
        dispatcher: Dispatcher,
        roster: Roster,
        speeds: Speeds,
        news: News,
        ears: Ears,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._outcomes = outcomes
        self._dispatcher = dispatcher
        self._roster = roster
        self._speeds = speeds
        self._news = news
        self._ears = ears
        self._clock = clock
        self._trails: dict[str, _Trail] = {}
        self._flushed: set[tuple[str, int]] = set()  # attempts under way when Redis forgot all

    def start_over(self) -> None:
        """We were away, or Redis was: nothing that was seen before counts any more."""
        self._trails.clear()
        self._news.restart_clocks()

    async def after_empty_redis(self) -> bool:
        """Redis forgot everything: what lay in its queues is queued again; whether that was any.

        What workers have in hand they go on with. Their pictures may have been lost too; nobody
        is to blame for that.
        """
        given = await self._table.in_state([JobState.DISPATCHED], MAX_LOOKED_AT)
        held = {job_id for beat in self._roster.beats() for job_id in beat.active}
        lost = [job.job_id for job in given if job.job_id not in held]
        running = await self._table.in_state([JobState.RUNNING], MAX_LOOKED_AT)
        self._flushed = {(job.job_id, job.attempt) for job in running}
        if lost:
            log.warning("Redis lost %d tasks: they are queued again", len(lost))
            await self._table.take_back(lost)
        again = await self._table.queued_again(MAX_LOOKED_AT)
        await self._stop_earlier([*running, *given, *again])
        return bool(lost)

    async def _stop_earlier(self, jobs: Sequence[Job]) -> None:
        """The flags of attempts that were given up are lost too, and somebody may have those."""
        try:
            await self._dispatcher.stop_earlier(jobs)
        except RedisGone as error:
            log.warning("pictures may be drawn twice: %s", error)

    async def look(self, sending: Collection[str] = (), *, absence_counts: bool = True) -> bool:
        """Looks once; whether a job waits again. ``sending``: jobs on their way to Redis.

        ``absence_counts``: whether a worker without heartbeat is gone. If not, it is perhaps just
        not heard yet; what workers say of themselves counts all the same.

        Call it after a refresh of the roster. Raises `RedisGone` and redis-py's errors: then
        `start_over`.
        """
        states = [JobState.DISPATCHED, JobState.RUNNING]
        jobs = await self._table.in_state(states, MAX_LOOKED_AT)
        self._follow(jobs)
        queued = await self._queued(jobs)
        suspects = []
        for job in jobs:
            if job.job_id in sending:
                continue
            if job.state is JobState.RUNNING:
                suspicion = self._suspect_running(job)
                is_said = self._roster.get(job.worker_id or "") is not None
            else:
                is_said = False  # somebody who is not heard yet may have it
                suspicion = self._suspect_given(job, job.job_id in queued)
            if suspicion is None or not (absence_counts or is_said):
                self._trails[job.job_id].mark = None
            else:
                suspects.append((job, *suspicion))
        return await self._act(suspects) if suspects else False

    def _follow(self, jobs: Collection[Job]) -> None:
        """Trails of the jobs that are out now, and of no others."""
        before, self._trails = self._trails, {}
        for job in jobs:
            trail = before.get(job.job_id)
            if trail is None or (trail.attempt, trail.state) != (job.attempt, job.state):
                trail = _Trail(job.attempt, job.state)
            trail.looks += 1
            self._trails[job.job_id] = trail
        self._news.keep_only([job.job_id for job in jobs if job.state is JobState.RUNNING])
        self._flushed &= {(job.job_id, job.attempt) for job in jobs}

    async def _queued(self, jobs: Collection[Job]) -> set[str]:
        """The jobs that lie in a queue, of those queues where some should."""
        given = [job for job in jobs if job.state is JobState.DISPATCHED]
        found: set[str] = set()
        for queue in {queue_of(job.spec.model, job.fingerprint) for job in given}:
            found |= await self._dispatcher.waiting(queue)
        return found

    # ------------------------------------------------------------ a job that was begun

    def _suspect_running(self, job: Job) -> tuple[Verdict, str] | None:
        trail, worker = self._trails[job.job_id], job.worker_id or "unknown"
        silent_seconds = self._news.silent_seconds(job)
        if trail.looks == 1:
            return None  # it was begun after the roster was refreshed, perhaps
        beat = self._roster.get(worker)
        if beat is None:
            return self._blame(job), f"worker {worker} is gone"
        if job.job_id not in beat.active:
            if self._is_missing(trail, [beat]):
                return self._blame(job), f"worker {worker} has it in hand no more"
            return None
        trail.missing_since = None
        if silent_seconds > self.patience_seconds(beat, job):
            return Verdict.FAILED, f"worker {worker} drew no step for {silent_seconds:.0f} s"
        return None

    def _blame(self, job: Job) -> Verdict:
        was_flushed = (job.job_id, job.attempt) in self._flushed
        return Verdict.TAKE_BACK if was_flushed else Verdict.DIED

    def patience_seconds(self, beat: Heartbeat, job: Job) -> float:
        """How long a worker may draw at a job without a step. From its measured step time.

        One whose model is not in memory waits for another model's pictures, then for its own;
        but not at a worker that does not get on with those either.
        """
        step_seconds = self._speeds.step_seconds(beat.worker_id, job.spec)
        is_coming = job.spec.model not in beat.loaded
        is_trusted = self._roster.stuck_since(beat.worker_id) is None
        if step_seconds is None or (is_coming and is_trusted):
            return UNMEASURED_PATIENCE_SECONDS
        return PATIENCE_SECONDS + PATIENCE_STEPS * step_seconds

    # ------------------------------------------------------------ a job that was given out

    def _suspect_given(self, job: Job, is_queued: bool) -> tuple[Verdict, str] | None:
        trail = self._trails[job.job_id]
        if is_queued:  # whoever has it in hand has an earlier attempt
            trail.holder, trail.missing_since = "", None
            return None
        if holders := [beat for beat in self._roster.beats() if job.job_id in beat.active]:
            trail.missing_since = None
            if trail.holder not in {beat.worker_id for beat in holders}:
                trail.holder, trail.held_since = holders[0].worker_id, self._clock()
            return self._suspect_held(job, trail, holders)
        if trail.holder:
            return Verdict.TAKE_BACK, f"worker {trail.holder} is gone, or has it in hand no more"
        model_id = job.spec.model
        beats = [b for b in self._roster.beats() if any(m.model_id == model_id for m in b.models)]
        if self._is_missing(trail, beats):
            return Verdict.TAKE_BACK, "the task was lost on its way"
        return None

    def _suspect_held(
        self, job: Job, trail: _Trail, holders: Collection[Heartbeat]
    ) -> tuple[Verdict, str] | None:
        """It waits for a worker's engine; does that get on with anything?"""
        held_seconds = self._clock() - trail.held_since
        for beat in holders:
            silent_seconds = self._news.worker_silent_seconds(beat.worker_id)
            if min(held_seconds, silent_seconds) <= self.patience_seconds(beat, job):
                return None
        return Verdict.STOP, f"worker {trail.holder} drew nothing for {held_seconds:.0f} s"

    def _is_missing(self, trail: _Trail, beats: Collection[Heartbeat]) -> bool:
        """Whether all who may have the job, and are online still, said twice that they do not."""
        now = self._clock()
        if trail.missing_since is None:
            trail.missing_since = now
            heard = self._roster.beats_heard
            trail.beats_then = {beat.worker_id: heard(beat.worker_id) for beat in beats}
        for worker, count in trail.beats_then.items():
            heard_now = self._roster.beats_heard(worker)
            is_new = heard_now < count  # it went and came back: it knows of nothing
            if heard_now and not is_new and heard_now < count + MISSING_BEATS:
                return False
        return now - trail.missing_since > MISSING_SECONDS

    # ------------------------------------------------------------ what follows

    async def _act(self, suspects: Collection[tuple[Job, Verdict, str]]) -> bool:
        """Acts on what is certain; whether a job waits again."""
        fresh = [self._trails[job.job_id] for job, _, _ in suspects]
        fresh = [trail for trail in fresh if trail.mark is None]
        if fresh:
            mark = await self._ears.mark()
            for trail in fresh:
                trail.mark = mark
        passed: dict[int, bool] = {}
        has_acted = False
        for job, verdict, cause in suspects:
            mark = self._trails[job.job_id].mark or 0
            if mark not in passed:
                passed[mark] = await self._ears.has_passed(mark)
            if passed[mark]:
                has_acted |= await self._settle(job, verdict, cause)
        return has_acted

    async def _settle(self, job: Job, verdict: Verdict, cause: str) -> bool:
        now = await self._table.get(job.job_id)
        if now is None or (now.attempt, now.state) != (job.attempt, job.state):
            return False  # what was in the stream has changed it
        if verdict in (Verdict.FAILED, Verdict.STOP):
            try:
                await self._dispatcher.stop([job])
            except RedisGone as error:
                log.warning("job %s may be drawn twice: %s", job.job_id, error)
        await self._distrust(now, verdict)
        if verdict is Verdict.FAILED:
            await self._outcomes.failed(now, cause)
        elif verdict is Verdict.DIED:
            await self._outcomes.died(now, cause)
        else:
            await self._outcomes.take_back(now, cause)
        return True

    async def _distrust(self, job: Job, verdict: Verdict) -> None:
        """A worker whose engine hangs is meant for no more jobs; one that takes them from the
        queue all the same, and keeps them for another deadline, is drained."""
        if verdict is Verdict.FAILED and job.worker_id:
            self._roster.distrust(job.worker_id, job.job_id)
        elif verdict is Verdict.STOP:
            trail = self._trails[job.job_id]
            since = self._roster.stuck_since(trail.holder)
            if since is not None and trail.held_since > since:
                log.error("worker %s hangs and takes jobs: it is drained", trail.holder)
                try:
                    await self._dispatcher.drain(trail.holder)
                except RedisGone as error:
                    log.warning("worker %s cannot be drained: %s", trail.holder, error)
