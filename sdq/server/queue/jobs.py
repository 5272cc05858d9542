"""The job table: every accepted job from its arrival to its end. It is the truth; Redis is not.

A job's state changes in one UPDATE that names the states it may come from, so the second of two
equal events changes nothing and is recognised by that.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import aiosqlite

from sdq.errors import ServerBusy
from sdq.protocol.states import TRANSITIONS, JobState
from sdq.server.database import Damaged, Database
from sdq.server.queue.job import (
    RANKS,
    Added,
    Job,
    JobIds,
    NewJob,
    job_of,
    jobs_of,
    json_list,
    readable_jobs_of,
    row_of,
)

PURGE_BATCH = 1_000
REMEMBERED_TURNS = 10_000
"""People who wait for nothing keep their turn for so many jobs of a model."""

IN_FLIGHT = "state IN ('queued', 'dispatched', 'running')"  # as the partial indices spell it
_FINAL = "state IN ('succeeded', 'failed', 'cancelled')"
_BEFORE = {
    after: json.dumps([state for state in TRANSITIONS if after in TRANSITIONS[state]])
    for after in JobState
}
_CHANGEABLE = frozenset({"worker_id", "error_code", "error_message", "draw_seconds"})
_COUNTERS = frozenset({"failures", "deaths"})

# INDEXED BY: without statistics SQLite prefers an index that holds every queued job.
_ADD = """
INSERT INTO jobs (job_id, key, spec, model_id, fingerprint, state, keep, identity, created_at)
VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?)
"""
_ADD_DONE = """
INSERT INTO jobs (job_id, key, spec, model_id, fingerprint, state, keep, identity, created_at,
    changed_at)
VALUES (?, ?, ?, ?, ?, 'succeeded', ?, ?, ?, ?)
"""
_WANT = """
INSERT INTO wants (sequence, identity, model_id, rank, holders, stage)
SELECT sequence, ?, model_id, ?, 1,
    CASE WHEN state = 'queued' THEN 0 WHEN state IN ('dispatched', 'running') THEN 1 ELSE 2 END
FROM jobs WHERE job_id = ?
ON CONFLICT (sequence, identity) DO UPDATE SET
    holders = holders + 1, rank = min(rank, excluded.rank)
"""
_BY_KEYS = f"""
SELECT * FROM jobs INDEXED BY jobs_one_in_flight
WHERE keep = 1 AND {IN_FLIGHT} AND key IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - made of our own constants, as all below
_BY_IDS = "SELECT * FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))"
_TAKE_BACK = """
UPDATE jobs SET state = 'queued', changed_at = ?, worker_id = NULL
WHERE job_id IN (SELECT value FROM json_each(?)) AND state IN ('dispatched', 'running')
RETURNING *
"""
_MOVE = """
UPDATE jobs SET {assignments}
WHERE job_id IN (SELECT value FROM json_each(?)) AND state IN (SELECT value FROM json_each(?))
AND attempt = coalesce(?, attempt)
RETURNING *
"""
_CANCEL_STALE = f"""
UPDATE jobs SET state = 'cancelled', changed_at = ? WHERE {IN_FLIGHT} AND (
    keep = 0 OR NOT EXISTS (SELECT 1 FROM wants WHERE wants.sequence = jobs.sequence) OR EXISTS (
        SELECT 1 FROM json_each(?) AS now WHERE now.key = model_id AND now.value <> fingerprint
    )
) RETURNING sequence
"""  # noqa: S608
_OF_OTHER_FILES = f"""
SELECT job_id FROM jobs WHERE {IN_FLIGHT} AND model_id = ? AND fingerprint <> ? LIMIT ?
"""  # noqa: S608
_IN_STATE = "SELECT * FROM (SELECT * FROM jobs WHERE state = ? ORDER BY sequence LIMIT ?)"
_PLACES_IN_STATE = """
SELECT sequence FROM (
    SELECT sequence FROM jobs INDEXED BY jobs_by_state WHERE state = ? ORDER BY sequence LIMIT ?
)
"""
_BY_SEQUENCE = "SELECT * FROM jobs WHERE sequence = ?"
_BY_ID = "SELECT * FROM jobs WHERE job_id = ?"
_QUEUED_NOW = "SELECT coalesce(sum(jobs), 0) AS jobs FROM job_counts WHERE state = 'queued'"
_COUNTS = "SELECT state, sum(jobs) AS jobs FROM job_counts GROUP BY state"
_COUNTS_OF = "SELECT state, jobs FROM job_counts WHERE model_id = ?"
_QUEUED_AGAIN = """
SELECT * FROM jobs INDEXED BY jobs_again WHERE state = 'queued' AND attempt > 0 LIMIT ?
"""
_QUEUED_MODELS = """
SELECT model_id FROM job_counts WHERE state = 'queued' AND jobs > 0 ORDER BY model_id
"""
_PURGE = f"""
DELETE FROM jobs WHERE sequence IN (
    SELECT sequence FROM jobs INDEXED BY jobs_final WHERE {_FINAL} AND changed_at < ? LIMIT ?
) RETURNING sequence
"""  # noqa: S608
_FINISHED_NOW = f"SELECT coalesce(sum(jobs), 0) AS jobs FROM job_counts WHERE {_FINAL}"  # noqa: S608
_PURGE_OLDEST = f"""
DELETE FROM jobs WHERE sequence IN (
    SELECT sequence FROM jobs INDEXED BY jobs_final WHERE {_FINAL} ORDER BY changed_at LIMIT ?
) RETURNING sequence
"""  # noqa: S608
_PURGE_TURNS = """
DELETE FROM turns WHERE waiting = 0 AND (served = 0 OR served < (
    SELECT max(served) - ? FROM turns AS other WHERE other.model_id = turns.model_id
))
"""


class JobTable:
    """All jobs. Whatever a method changed is committed when it returns.

    Each raises `StackError` when the disk is full or broken, and then changed nothing. A cancel
    undoes the change, unless it came during the commit: ask the table afterwards.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._ids = JobIds(clock)

    async def add(self, jobs: Sequence[NewJob], *, max_queued: int | None = None) -> list[Added]:
        """Adds all of the jobs or none, wanted by who asked; gives one for each, in their order.

        Where a kept job with the same key is in flight (or earlier in ``jobs``), that one is
        given in its place: two of the list may be the same job. Raises `ServerBusy` when more
        than ``max_queued`` jobs would be queued then.
        """
        if not jobs:
            return []
        wanted = json_list(job.key for job in jobs if job.keep)
        rows: list[tuple[object, ...]] = []
        ids: list[str] = []
        now = self._clock()
        async with self._database.transaction() as inside:
            found = await inside.execute_fetchall(_BY_KEYS, (wanted,))
            taken = {row["key"]: str(row["job_id"]) for row in found}
            fresh: set[str] = set()
            for job in jobs:
                job_id = taken.get(job.key) if job.keep else None
                if job_id is None:
                    job_id = self._ids.next()
                    rows.append(row_of(job, job_id, now))
                    fresh.add(job_id)
                    if job.keep:
                        taken[job.key] = job_id
                ids.append(job_id)
            await _refuse_too_many(inside, len(rows), max_queued)
            await inside.executemany(_ADD, rows)
            await inside.executemany(_WANT, _wants(jobs, ids))
            found = await inside.execute_fetchall(_BY_IDS, (json_list(ids),))
        by_id = {job.job_id: job for job in jobs_of(found)}
        return [Added(by_id[job_id], job_id in fresh) for job_id in ids]

    async def add_done(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Adds jobs whose pictures are in the library already: they have succeeded."""
        now = self._clock()
        ids = [self._ids.next() for _ in jobs]
        rows = [(*row_of(job, job_id, now), now) for job, job_id in zip(jobs, ids, strict=True)]
        async with self._database.transaction() as inside:
            await inside.executemany(_ADD_DONE, rows)
            await inside.executemany(_WANT, _wants(jobs, ids))
            found = await inside.execute_fetchall(_BY_IDS, (json_list(ids),))
        return jobs_of(found)

    async def move(
        self, job_id: str, after: JobState, *, if_attempt: int | None = None, **changes: object
    ) -> Job | None:
        """Puts the job into state ``after``, when its present state allows that.

        With ``if_attempt``: only when that is its present one. ``changes``: worker_id, error_code,
        error_message, draw_seconds; and what is added to failures and deaths. ``None`` when there
        is no such job or it may not go there; nothing is changed then.
        """
        moved = await self.move_many([job_id], after, if_attempt=if_attempt, **changes)
        return moved[0] if moved else None

    async def move_many(
        self,
        job_ids: Sequence[str],
        after: JobState,
        *,
        if_attempt: int | None = None,
        **changes: object,
    ) -> list[Job]:
        """`move` for many at once; gives those that moved, in the order of their arrival."""
        async with self._database.transaction() as inside:
            return await self.move_inside(inside, job_ids, after, if_attempt=if_attempt, **changes)

    async def move_inside(
        self,
        inside: aiosqlite.Connection,
        job_ids: Sequence[str],
        after: JobState,
        *,
        if_attempt: int | None = None,
        **changes: object,
    ) -> list[Job]:
        """`move_many` as a part of a transaction of the caller's."""
        unknown = changes.keys() - _CHANGEABLE - _COUNTERS
        if unknown:
            raise TypeError(f"a job has no changeable field {min(unknown)!r}")
        sets = ["state = ?", "changed_at = ?"]
        sets += [f"{name} = {name} + ?" if name in _COUNTERS else f"{name} = ?" for name in changes]
        sql = _MOVE.format(assignments=", ".join(sets))
        values = [after.value, self._clock(), *changes.values(), json_list(job_ids), _BEFORE[after]]
        values.append(if_attempt)
        return jobs_of(await inside.execute_fetchall(sql, values))

    async def take_back(self, job_ids: Sequence[str]) -> list[Job]:
        """Dispatched and running jobs wait again, and nobody's fault is counted; which ones."""
        async with self._database.transaction() as inside:
            values = (self._clock(), json_list(job_ids))
            return jobs_of(await inside.execute_fetchall(_TAKE_BACK, values))

    async def get(self, job_id: str) -> Job | None:
        row = await self._database.fetch_one(_BY_ID, (job_id,))
        return None if row is None else job_of(row)

    async def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """By id: those of the jobs that there are, and whose rows can be read."""
        try:
            rows = await self._database.fetch_all(_BY_IDS, (json_list(job_ids),))
        except Damaged:
            rows = await self._one_by_one(_BY_ID, job_ids)
        return {job.job_id: job for job in readable_jobs_of(rows)}

    async def in_state(self, states: Collection[JobState], limit: int = 10_000) -> list[Job]:
        """The oldest jobs that are in one of the states, and whose rows can be read."""
        # One query, so that no job moves while we look; each state is read in order, so that
        # nothing is sorted.
        values = [value for state in states for value in (state, limit)]
        try:
            query = " UNION ALL ".join(_IN_STATE for _ in states)
            rows = await self._database.fetch_all(query, values)
        except Damaged:
            query = " UNION ALL ".join(_PLACES_IN_STATE for _ in states)
            places = await self._database.fetch_all(query, values)
            rows = await self._one_by_one(_BY_SEQUENCE, [row["sequence"] for row in places])
        return readable_jobs_of(rows)[:limit]

    async def _one_by_one(self, query: str, names: Iterable[object]) -> list[sqlite3.Row]:
        """Past a damaged page: slow, and finds all that the file still holds."""
        rows: list[sqlite3.Row] = []
        for name in names:
            with contextlib.suppress(Damaged):
                rows += await self._database.fetch_all(query, (name,))
        return rows

    async def queued_again(self, limit: int) -> list[Job]:
        """Queued jobs that were given out before: somebody may still have an attempt of them."""
        return readable_jobs_of(await self._database.fetch_all(_QUEUED_AGAIN, (limit,)))

    async def in_flight(self, keys: Sequence[str]) -> dict[str, Job]:
        """By key: the kept jobs that are not final, at most one a key."""
        rows = await self._database.fetch_all(_BY_KEYS, (json_list(keys),))
        return {job.key: job for job in jobs_of(rows)}

    async def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; every state is there. Running totals, no scan."""
        counts = dict.fromkeys(JobState, 0)
        for row in await self._database.fetch_all(_COUNTS):
            counts[JobState(row["state"])] = row["jobs"]
        return counts

    async def counts_of(self, model_id: str) -> dict[JobState, int]:
        """`counts` of one model's jobs."""
        counts = dict.fromkeys(JobState, 0)
        for row in await self._database.fetch_all(_COUNTS_OF, (model_id,)):
            counts[JobState(row["state"])] = row["jobs"]
        return counts

    async def cancel_stale(self, fingerprints: Mapping[str, str]) -> int:
        """Cancels jobs of before this start whose pictures nobody can be given; how many.

        Those that would not be kept: who waited is gone. Those that nobody wants: a server was
        killed between the last one's withdrawal and the cancel. And those for other files of a
        model than it has now (``fingerprints``, by model id): no request leads to their keys.
        """
        values = (self._clock(), json.dumps(dict(fingerprints)))
        async with self._database.transaction() as inside:
            return len(list(await inside.execute_fetchall(_CANCEL_STALE, values)))

    async def of_other_files(self, model_id: str, fingerprint: str, limit: int) -> list[str]:
        """Ids of jobs in flight for other files of this model."""
        values = (model_id, fingerprint, limit)
        return [row["job_id"] for row in await self._database.fetch_all(_OF_OTHER_FILES, values)]

    async def queued_models(self) -> list[str]:
        """The models that have queued jobs."""
        return [row["model_id"] for row in await self._database.fetch_all(_QUEUED_MODELS)]

    async def purge(self, older_than_seconds: float) -> int:
        """Forgets jobs that came to their end longer ago than this; gives how many.

        Safe to cancel: it works in batches and stops early.
        """
        before, purged = self._clock() - older_than_seconds, 0
        while True:
            async with self._database.transaction() as inside:
                rows = list(await inside.execute_fetchall(_PURGE, (before, PURGE_BATCH)))
            purged += len(rows)
            if len(rows) < PURGE_BATCH:
                break
        async with self._database.transaction() as inside:
            await inside.execute_fetchall(_PURGE_TURNS, (REMEMBERED_TURNS,))
        return purged

    async def thin_out(self, max_finished: int) -> int:
        """Forgets the oldest of the finished jobs beyond so many; gives how many.

        Safe to cancel: it works in batches and stops early.
        """
        forgotten = 0
        while True:
            async with self._database.transaction() as inside:
                (total,) = await inside.execute_fetchall(_FINISHED_NOW)
                batch = min(PURGE_BATCH, total["jobs"] - max_finished)
                if batch <= 0:
                    return forgotten
                rows = list(await inside.execute_fetchall(_PURGE_OLDEST, (batch,)))
            forgotten += len(rows)
            if not rows:  # the running totals are wrong
                return forgotten


def _wants(jobs: Sequence[NewJob], ids: Sequence[str]) -> list[tuple[object, ...]]:
    return [
        (job.identity, RANKS[job.priority], job_id) for job, job_id in zip(jobs, ids, strict=True)
    ]


async def _refuse_too_many(
    inside: aiosqlite.Connection, fresh: int, max_queued: int | None
) -> None:
    if max_queued is None or not fresh:
        return
    rows = list(await inside.execute_fetchall(_QUEUED_NOW))
    if rows[0]["jobs"] + fresh > max_queued:
        raise ServerBusy(f"{max_queued} pictures are waiting already", hint="try again later")
