"""Why a job waits: how many go before it, how long that takes, the reason in words."""

from collections.abc import Sequence
from typing import NamedTuple

from sdq.server.job import Job
from sdq.server.roster import Roster


class Why(NamedTuple):
    """``ahead`` and ``eta_seconds`` are ``None`` when nobody can say."""

    ahead: int | None
    eta_seconds: float | None
    note: str


class Waiting:
    """Looks at the workers online."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    async def explain(self, jobs: Sequence[Job]) -> dict[str, Why]:
        """By job id, for those of the jobs that wait."""
        return {
            job.job_id: Why(
                None, None, self._roster.why_waiting(job.spec.model, job.fingerprint, 0)
            )
            for job in jobs
        }
