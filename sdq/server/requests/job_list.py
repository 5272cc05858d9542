"""`ListJobs`: rows of the table beside what is known of them at this moment."""

import time
from collections.abc import Callable

from sdq.protocol.job_messages import JobInfo, Jobs, ListJobs
from sdq.protocol.states import JobState
from sdq.server.queue.waiting import Why
from sdq.server.queue.wants import Listed, Wants
from sdq.server.requests.announcing import Announcer

_EXPLAINED = (JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING)
_NOTHING = Why(None, None, "")


class JobList:
    """``clock``: seconds since 1970, the one of the table."""

    def __init__(
        self, wants: Wants, announcer: Announcer, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._wants = wants
        self._announcer = announcer
        self._clock = clock

    async def list(self, message: ListJobs, identity: str) -> Jobs:
        """The newest jobs, bounded by the message's ``limit``."""
        listed, more = await self._wants.list(
            identity, mine=message.mine, ended=message.ended, limit=message.limit
        )
        in_flight = [one.job for one in listed if one.job.state in _EXPLAINED]
        whys = await self._announcer.explain(in_flight) if in_flight else {}
        now = self._clock()
        jobs = tuple(self._info(one, whys.get(one.job.job_id, _NOTHING), now) for one in listed)
        return Jobs(message.request_id, jobs, more)

    def _info(self, listed: Listed, why: Why, now: float) -> JobInfo:
        job = listed.job
        return JobInfo(
            job_id=job.job_id,
            key=job.key,
            spec=job.spec,
            state=job.state,
            is_mine=listed.is_mine,
            priority=listed.priority,
            created_seconds_ago=max(0.0, now - job.created_at),
            changed_seconds_ago=max(0.0, now - (job.changed_at or job.created_at)),
            attempt=job.attempt,
            worker_id=job.worker_id,
            step=self._announcer.step_of(job),
            ahead=why.ahead,
            eta_seconds=why.eta_seconds,
            note=why.note,
            error_code=job.error_code,
            error_message=job.error_message,
            draw_seconds=job.draw_seconds,
        )
