"""Who wants which job: taking it back, what becomes of it then, and one's list of jobs.

A person wants a job once for each request that asked for it (``holders``). A job that nobody
wants any more is cancelled; one that somebody else wants goes on.
"""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sdq.protocol.vocabulary import Priority
from sdq.server.database import Damaged, Database
from sdq.server.queue.job import PRIORITIES, RANKS, Job, job_of, jobs_of, json_list
from sdq.server.queue.jobs import IN_FLIGHT

log = logging.getLogger(__name__)

_HELD_LESS = """
UPDATE wants SET holders = holders - 1
WHERE identity = ? AND sequence = (SELECT sequence FROM jobs WHERE job_id = ?)
"""
_NOT_HELD = """
DELETE FROM wants WHERE holders <= 0 AND identity = ?
AND sequence IN (SELECT sequence FROM jobs WHERE job_id IN (SELECT value FROM json_each(?)))
"""
_WITHDRAW = """
DELETE FROM wants WHERE identity = ? AND stage < 2
AND sequence IN (SELECT sequence FROM jobs WHERE job_id IN (SELECT value FROM json_each(?)))
RETURNING sequence
"""
_WITHDRAW_ALL = """
DELETE FROM wants WHERE identity = ? AND sequence IN (
    SELECT sequence FROM wants WHERE identity = ? AND stage < 2 ORDER BY stage, sequence LIMIT ?
) RETURNING sequence
"""
_ADOPT = f"""
INSERT INTO wants (sequence, identity, model_id, rank, holders, stage)
SELECT sequence, ?, model_id, ?, 1, CASE WHEN state = 'queued' THEN 0 ELSE 1 END
FROM jobs WHERE job_id IN (SELECT value FROM json_each(?)) AND {IN_FLIGHT}
ON CONFLICT DO NOTHING
"""  # noqa: S608 - made of our own constants, as all below
_IDS_OF = "SELECT job_id FROM jobs WHERE sequence IN (SELECT value FROM json_each(?))"
_CANCEL_UNWANTED = f"""
UPDATE jobs SET state = 'cancelled', changed_at = ?
WHERE job_id IN (SELECT value FROM json_each(?)) AND {IN_FLIGHT}
AND NOT EXISTS (SELECT 1 FROM wants WHERE wants.sequence = jobs.sequence)
RETURNING *
"""  # noqa: S608
_WITH_WANTS = """
SELECT jobs.*, mine.rank AS my_rank,
    (SELECT min(rank) FROM wants WHERE wants.sequence = jobs.sequence) AS any_rank
FROM jobs LEFT JOIN wants AS mine ON mine.sequence = jobs.sequence AND mine.identity = ?
"""
_LIST_STATE = f"{_WITH_WANTS} WHERE state = ? ORDER BY jobs.sequence DESC LIMIT ?"
_LIST_ALL = f"{_WITH_WANTS} ORDER BY jobs.sequence DESC LIMIT ?"
_LIST_MINE = f"""
{_WITH_WANTS} WHERE jobs.sequence IN (
    SELECT sequence FROM wants WHERE identity = ? AND stage = ? ORDER BY sequence DESC LIMIT ?
)
"""  # noqa: S608
_COUNT_MINE = "SELECT count(*) AS jobs FROM wants WHERE identity = ? AND stage <= ?"
_COUNT_ALL = "SELECT sum(jobs) AS jobs FROM job_counts"
_COUNT_OPEN = f"SELECT sum(jobs) AS jobs FROM job_counts WHERE {IN_FLIGHT}"  # noqa: S608

_WAITING_BY_PERSON = (
    "SELECT identity, sum(waiting) AS jobs FROM turns WHERE waiting > 0 GROUP BY identity"
)
_GIVEN_BY_PERSON = """
SELECT wants.identity, count(*) AS jobs FROM jobs JOIN wants ON wants.sequence = jobs.sequence
WHERE jobs.state = ? GROUP BY wants.identity
"""


class Load(NamedTuple):
    """How many jobs of a person have not ended."""

    identity: str
    waiting: int
    drawing: int  # begun by a worker; what only lies in its hands waits


class Listed(NamedTuple):
    """A job in somebody's list."""

    job: Job
    is_mine: bool
    priority: Priority


class Wants:
    """Whatever a method changed is committed when it returns. Raises as `JobTable` does."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def adopt(self, identity: str, job_ids: Sequence[str]) -> None:
        """This person wants these jobs from now on, if they have not ended.

        For whoever waits for a job (`Attach`) that nobody else wants any more: a job that nobody
        wants stands in nobody's line.
        """
        async with self._database.transaction() as inside:
            values = (identity, RANKS[Priority.NORMAL], json_list(job_ids))
            await inside.execute_fetchall(_ADOPT, values)

    async def release(self, identity: str, job_ids: Sequence[str]) -> None:
        """One request of this person wants these jobs no more (an id twice: twice)."""
        async with self._database.transaction() as inside:
            await inside.executemany(_HELD_LESS, [(identity, job_id) for job_id in job_ids])
            await inside.execute_fetchall(_NOT_HELD, (identity, json_list(job_ids)))

    async def withdraw(self, identity: str, job_ids: Sequence[str]) -> list[str]:
        """This person wants these jobs no more; those of them that it wanted and that go on."""
        return await self._withdraw(_WITHDRAW, (identity, json_list(job_ids)))

    async def withdraw_some(self, identity: str, limit: int) -> list[str]:
        """`withdraw` for any that have not ended, the queued ones first. Fewer than ``limit``
        mean that there are no more."""
        return await self._withdraw(_WITHDRAW_ALL, (identity, identity, limit))

    async def _withdraw(self, sql: str, values: tuple[object, ...]) -> list[str]:
        async with self._database.transaction() as inside:
            gone = [row["sequence"] for row in await inside.execute_fetchall(sql, values)]
            rows = await inside.execute_fetchall(_IDS_OF, (json_list(gone),))
        return [row["job_id"] for row in rows]

    async def cancel_unwanted(self, job_ids: Sequence[str]) -> list[Job]:
        """Cancels those of the jobs that nobody wants; gives them. Others stay as they are."""
        async with self._database.transaction() as inside:
            values = (self._clock(), json_list(job_ids))
            return jobs_of(await inside.execute_fetchall(_CANCEL_UNWANTED, values))

    async def loads(self) -> list[Load]:
        """Everybody who waits for something. A job that two people want counts for both."""
        waiting = await self._by_person(_WAITING_BY_PERSON)
        waiting += await self._by_person(_GIVEN_BY_PERSON, "dispatched")
        drawing = await self._by_person(_GIVEN_BY_PERSON, "running")
        return [Load(one, waiting[one], drawing[one]) for one in waiting.keys() | drawing.keys()]

    async def _by_person(self, sql: str, *values: str) -> Counter[str]:
        rows = await self._database.fetch_all(sql, values)
        return Counter({row["identity"]: row["jobs"] for row in rows})

    async def list(
        self, identity: str, *, mine: bool, ended: bool, limit: int
    ) -> tuple[list[Listed], int]:
        """The newest jobs, and how many others there are. ``ended``: also those at their end."""
        queries: list[tuple[str, tuple[object, ...]]]
        if mine:
            stages = (0, 1, 2) if ended else (0, 1)
            queries = [(_LIST_MINE, (identity, identity, stage, limit)) for stage in stages]
            count: tuple[str, tuple[object, ...]] = (_COUNT_MINE, (identity, stages[-1]))
        elif ended:
            queries, count = [(_LIST_ALL, (identity, limit))], (_COUNT_ALL, ())
        else:
            states = ("queued", "dispatched", "running")
            queries = [(_LIST_STATE, (identity, state, limit)) for state in states]
            count = (_COUNT_OPEN, ())
        rows = [
            row for sql, values in queries for row in await self._database.fetch_all(sql, values)
        ]
        rows.sort(key=lambda row: int(row["sequence"]), reverse=True)
        total = await self._database.fetch_one(*count)
        listed = [one for row in rows[:limit] if (one := _listed(row)) is not None]
        return listed, max(0, (total["jobs"] or 0) - len(listed)) if total else 0


def _listed(row: sqlite3.Row) -> Listed | None:
    """``None`` for a damaged row: the others are listed all the same."""
    mine = row["my_rank"]
    rank = row["any_rank"] if mine is None else mine
    try:
        return Listed(job_of(row), mine is not None, PRIORITIES.get(rank, Priority.NORMAL))
    except Damaged as error:
        log.warning("%s", error)
        return None
