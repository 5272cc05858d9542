"""The first news of a job to whoever has just begun to wait for it."""

import logging
from collections.abc import Mapping, Sequence

from sdq.errors import StackError
from sdq.protocol.states import JobState
from sdq.server.queue.job import Job
from sdq.server.queue.subscriptions import Subscription
from sdq.server.queue.waiting import Waiting, Why

log = logging.getLogger(__name__)

_UNKNOWN = Why(None, None, "")


class Announcer:
    """``steps``: the last step that was heard of each running job."""

    def __init__(self, waiting: Waiting, steps: Mapping[str, int]) -> None:
        self._waiting = waiting
        self._steps = steps

    async def announce(self, awaited: Sequence[tuple[Subscription, Job]]) -> None:
        """State, place and reason; nothing to those who have heard more recent news meanwhile."""
        whys = await self.explain([job for _, job in awaited])
        for subscription, job in awaited:
            if subscription.told or not subscription.is_waiting:
                continue
            why = whys.get(job.job_id, _UNKNOWN)
            subscription.progress(
                job.state,
                step=self.step_of(job),
                ahead=why.ahead,
                note=why.note,
                eta_seconds=why.eta_seconds,
            )

    async def explain(self, jobs: Sequence[Job]) -> dict[str, Why]:
        """Why jobs wait; empty when the disk does not say: that ends no request."""
        try:
            return await self._waiting.explain(jobs)
        except StackError as error:
            log.warning("nobody can say why jobs wait: %s", error)
            return {}

    def step_of(self, job: Job) -> int:
        """0 until it was begun, and until the first step is heard of."""
        return self._steps.get(job.job_id, 0) if job.state is JobState.RUNNING else 0
