"""Fair turns: whose job is next, and what goes before it.

For each model, whoever was served least recently goes next (as in InvokeAI's session queue), and
among one person's jobs the priority decides, then the order of arrival. A job that was given to
a worker before had its turn: it goes before all others.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from sdq.server.database import Database
from sdq.server.job import Job, jobs_of

_GIVE = (
    "UPDATE jobs SET state = 'dispatched', attempt = attempt + 1, dispatched_at = ?, changed_at = ?"
)

_AGAIN = f"""
{_GIVE} WHERE sequence IN (
    SELECT sequence FROM jobs INDEXED BY jobs_again
    WHERE state = 'queued' AND attempt > 0 AND model_id = ? ORDER BY sequence LIMIT ?
)
RETURNING *
"""  # noqa: S608 - made of our own constants, as below
_SERVE = """
UPDATE turns SET served = 1 + (SELECT max(served) FROM turns WHERE model_id = :model_id)
WHERE model_id = :model_id AND identity = (
    SELECT identity FROM turns INDEXED BY turns_next
    WHERE waiting > 0 AND model_id = :model_id ORDER BY served, identity LIMIT 1
)
RETURNING identity
"""
_FIRST_IN_LINE = f"""
{_GIVE} WHERE sequence = (
    SELECT sequence FROM wants INDEXED BY wants_in_line
    WHERE stage = 0 AND model_id = ? AND identity = ? ORDER BY rank, sequence LIMIT 1
) AND state = 'queued'
RETURNING *
"""  # noqa: S608
_STANDINGS = """
SELECT identity, served, waiting FROM turns INDEXED BY turns_next
WHERE waiting > 0 AND model_id = ? ORDER BY served, identity LIMIT ?
"""
_LINE = """
SELECT job_id FROM jobs JOIN (
    SELECT sequence AS place, rank FROM wants INDEXED BY wants_in_line
    WHERE stage = 0 AND model_id = ? AND identity = ? ORDER BY rank, sequence LIMIT ?
) ON sequence = place ORDER BY rank, sequence
"""
_WAITING_AGAIN = """
SELECT job_id FROM jobs INDEXED BY jobs_again
WHERE state = 'queued' AND attempt > 0 AND model_id = ? ORDER BY sequence LIMIT ?
"""


class Standing(NamedTuple):
    """One person who waits for a model, in the order of the next turns."""

    identity: str
    served: int  # rises with each job given out; 0: never served
    waiting: int  # queued jobs


class Turns:
    """Takes jobs out of the queue. Whatever a method changed is committed when it returns."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def dispatch_next(self, model_id: str, limit: int) -> list[Job]:
        """At most ``limit`` queued jobs of a model, the next first: they are dispatched now."""
        now = self._clock()
        async with self._database.transaction() as inside:
            rows = await inside.execute_fetchall(_AGAIN, (now, now, model_id, limit))
            jobs = jobs_of(rows)
            for _ in range(limit - len(jobs)):
                served = list(await inside.execute_fetchall(_SERVE, {"model_id": model_id}))
                if not served:
                    break
                values = (now, now, model_id, served[0]["identity"])
                jobs += jobs_of(await inside.execute_fetchall(_FIRST_IN_LINE, values))
        return jobs

    async def standings(self, model_id: str, limit: int) -> list[Standing]:
        """Who waits for a model, the next one to be served first."""
        rows = await self._database.fetch_all(_STANDINGS, (model_id, limit))
        return [Standing(row["identity"], row["served"], row["waiting"]) for row in rows]

    async def line(self, model_id: str, identity: str, limit: int) -> list[str]:
        """The ids of one person's queued jobs of a model, the next one first."""
        rows = await self._database.fetch_all(_LINE, (model_id, identity, limit))
        return [row["job_id"] for row in rows]

    async def going_first(self, model_id: str, limit: int) -> list[str]:
        """The ids of queued jobs that had their turn already: they go before everybody's."""
        rows = await self._database.fetch_all(_WAITING_AGAIN, (model_id, limit))
        return [row["job_id"] for row in rows]
