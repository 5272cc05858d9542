"""Fair turns: whose job is next, and what goes before it.

For each model, whoever was served least recently goes next (as in InvokeAI's session queue), and
among one person's jobs the priority decides, then the order of arrival. A job that was given to
a worker before had its turn: it goes before all others.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import NamedTuple

import aiosqlite

from sdq.errors import StackError
from sdq.server.database import Damaged, Database, damaged, is_damage
from sdq.server.queue.job import Job, job_of

log = logging.getLogger(__name__)

MAX_UNREADABLE = 1_000
"""Damaged rows in one dispatch. With more of them the file is beyond us."""

_GIVE = """
UPDATE jobs SET state = 'dispatched', attempt = attempt + 1, dispatched_at = ?, changed_at = ?
WHERE sequence = ? AND state = 'queued' RETURNING *
"""
_AGAIN = """
SELECT sequence FROM jobs INDEXED BY jobs_again
WHERE state = 'queued' AND attempt > 0 AND model_id = ? ORDER BY sequence LIMIT ?
"""
_SERVE = """
UPDATE turns SET served = 1 + (SELECT max(served) FROM turns WHERE model_id = :model_id)
WHERE model_id = :model_id AND identity = (
    SELECT identity FROM turns INDEXED BY turns_next
    WHERE waiting > 0 AND model_id = :model_id ORDER BY served, identity LIMIT 1
)
RETURNING identity
"""
_FIRST_IN_LINE = """
SELECT sequence FROM wants INDEXED BY wants_in_line
WHERE stage = 0 AND model_id = ? AND identity = ? ORDER BY rank, sequence LIMIT 1
"""
_FAIL = """
UPDATE jobs SET state = 'failed', changed_at = ?, error_code = ?, error_message = ?
WHERE sequence = ? AND state = 'queued' RETURNING sequence
"""
_OUT_OF_LINE = "UPDATE wants SET stage = 2 WHERE sequence = ?"
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


class _Unreadable(Exception):
    """A job whose row cannot be worked with; undoes the transaction that met it."""

    def __init__(self, sequence: int, why: str) -> None:
        super().__init__(why)
        self.sequence = sequence


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
        self._unreadable: set[int] = set()  # rows on damaged pages

    async def dispatch_next(self, model_id: str, limit: int) -> list[Job]:
        """At most ``limit`` queued jobs of a model, the next first: they are dispatched now.

        One whose row is damaged fails, or is passed over, so that it holds up nobody.
        """
        for _ in range(MAX_UNREADABLE):
            try:
                return await self._dispatch_next(model_id, limit)
            except _Unreadable as found:
                log.error("a job cannot be given to a worker, the others can: %s", found)
                await self._give_up(found.sequence, str(found))
        raise damaged("too many jobs are damaged")

    async def _dispatch_next(self, model_id: str, limit: int) -> list[Job]:
        jobs: list[Job] = []
        async with self._database.transaction() as inside:
            values = (model_id, limit + len(self._unreadable))
            again = [row["sequence"] for row in await inside.execute_fetchall(_AGAIN, values)]
            again = [sequence for sequence in again if sequence not in self._unreadable]
            jobs += [await self._give(inside, sequence) for sequence in again[:limit]]
            for _ in range(limit - len(jobs)):
                served = list(await inside.execute_fetchall(_SERVE, {"model_id": model_id}))
                if not served:
                    break
                values = (model_id, served[0]["identity"])
                first = await inside.execute_fetchall(_FIRST_IN_LINE, values)
                jobs += [await self._give(inside, row["sequence"]) for row in first]
        return jobs

    async def _give(self, inside: aiosqlite.Connection, sequence: int) -> Job:
        now = self._clock()
        try:
            rows = list(await inside.execute_fetchall(_GIVE, (now, now, sequence)))
            if rows:
                return job_of(rows[0])
        except (sqlite3.Error, Damaged) as error:
            if not isinstance(error, Damaged) and not is_damage(error):
                raise
            raise _Unreadable(sequence, str(error)) from error
        raise _Unreadable(sequence, f"row {sequence} of the jobs is not as its line says")

    async def _give_up(self, sequence: int, why: str) -> None:
        """The job fails, if that can be written down; else nobody looks at it any more.

        SQLite writes nothing more in a transaction that met a damaged page: this is a new one.
        """
        words = f"the job's row is damaged: {why}"
        try:
            async with self._database.transaction() as inside:
                values = (self._clock(), StackError.code, words, sequence)
                failed = list(await inside.execute_fetchall(_FAIL, values))
        except Damaged:
            failed = []
        if not failed:
            self._unreadable.add(sequence)
            async with self._database.transaction() as inside:
                await inside.execute_fetchall(_OUT_OF_LINE, (sequence,))

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
