"""The job table: every accepted job from its arrival to its end. It is the truth; Redis is not.

A job's state changes in one UPDATE that names the states it may come from, so the second of two
equal events changes nothing and is recognised by that.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from sdq.protocol.states import TRANSITIONS, JobState
from sdq.server.database import Database
from sdq.spec import ImageSpec

PURGE_BATCH = 1_000

_ID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 26
_RANDOM_BITS = 80

_decode_spec = msgspec.json.Decoder(ImageSpec).decode
_IN_FLIGHT = "state IN ('queued', 'dispatched', 'running')"  # as the partial indices spell it
_FINAL = "state IN ('succeeded', 'failed', 'cancelled')"
_BEFORE = {
    after: json.dumps([state for state in TRANSITIONS if after in TRANSITIONS[state]])
    for after in JobState
}
_CHANGEABLE = frozenset(
    {"attempt", "worker_id", "dispatched_at", "error_code", "error_message", "draw_seconds"}
)

# INDEXED BY: without statistics SQLite prefers an index that holds every queued job.
_ADD = """
INSERT INTO jobs (job_id, key, spec, model_id, fingerprint, state, keep, identity, created_at)
VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?)
"""
_BY_KEYS = f"""
SELECT * FROM jobs INDEXED BY jobs_one_in_flight
WHERE keep = 1 AND {_IN_FLIGHT} AND key IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - made of our own constants, as all below
_BY_IDS = "SELECT * FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))"
_DISPATCH = """
UPDATE jobs SET state = 'dispatched', attempt = attempt + 1, dispatched_at = ?, changed_at = ?
WHERE sequence IN (
    SELECT sequence FROM jobs INDEXED BY jobs_queued
    WHERE state = 'queued' AND model_id = ? ORDER BY sequence LIMIT ?
)
RETURNING *
"""
_TAKE_BACK = """
UPDATE jobs SET state = 'queued', attempt = attempt - 1, changed_at = ?
WHERE job_id IN (SELECT value FROM json_each(?)) AND state = 'dispatched'
"""
_MOVE = """
UPDATE jobs SET {assignments}
WHERE job_id IN (SELECT value FROM json_each(?)) AND state IN (SELECT value FROM json_each(?))
RETURNING *
"""
_CANCEL_UNWANTED = f"""
UPDATE jobs SET state = 'cancelled', changed_at = ? WHERE {_IN_FLIGHT} AND (
    keep = 0 OR EXISTS (
        SELECT 1 FROM json_each(?) AS now WHERE now.key = model_id AND now.value <> fingerprint
    )
) RETURNING sequence
"""  # noqa: S608
_IN_STATE = """
SELECT * FROM jobs WHERE state IN (SELECT value FROM json_each(?)) ORDER BY sequence LIMIT ?
"""
_COUNTS = "SELECT state, sum(jobs) AS jobs FROM job_counts GROUP BY state"
_QUEUED_MODELS = """
SELECT model_id FROM job_counts WHERE state = 'queued' AND jobs > 0 ORDER BY model_id
"""
_PURGE = f"""
DELETE FROM jobs WHERE sequence IN (
    SELECT sequence FROM jobs INDEXED BY jobs_final WHERE {_FINAL} AND changed_at < ? LIMIT ?
) RETURNING sequence
"""  # noqa: S608


class NewJob(msgspec.Struct, frozen=True):
    """A picture to be drawn. ``keep`` is False for ``--cache off``: not stored, not shared."""

    key: str
    spec: ImageSpec
    fingerprint: str  # of the model
    keep: bool
    identity: str  # who asked


class Job(msgspec.Struct, frozen=True):
    """A row of the table. Times in seconds since 1970."""

    job_id: str
    key: str
    spec: ImageSpec
    fingerprint: str
    state: JobState
    attempt: int  # 0 until the first dispatch
    keep: bool
    identity: str
    created_at: float
    dispatched_at: float | None
    changed_at: float | None  # of the state; None: still as it was added
    worker_id: str | None
    error_code: str
    error_message: str
    draw_seconds: float | None


class JobIds:
    """26 characters that sort by time: 48 bits of milliseconds, 80 of chance.

    Strictly rising within one process, also when the clock steps back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> str:
        fresh = int(self._clock() * 1_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        self._last = number = max(fresh, self._last + 1)
        digits = [_ID_DIGITS[number >> 5 * place & 31] for place in range(_ID_LENGTH)]
        return "".join(reversed(digits))


class JobTable:
    """All jobs. Whatever a method changed is committed when it returns.

    Each raises `StackError` when the disk is full or broken, and then changed nothing. A cancel
    undoes the change, unless it came during the commit: ask the table afterwards.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._ids = JobIds(clock)

    async def add(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Adds all of the jobs or none; gives one for each, in their order.

        Where a kept job with the same key is in flight (or earlier in ``jobs``), that one is
        given in its place: two of the list may be the same job.
        """
        if not jobs:
            return []
        wanted = _json([job.key for job in jobs if job.keep])
        rows: list[tuple[object, ...]] = []
        ids: list[str] = []
        now = self._clock()
        async with self._database.transaction() as inside:
            found = await inside.execute_fetchall(_BY_KEYS, (wanted,))
            taken = {row["key"]: str(row["job_id"]) for row in found}
            for job in jobs:
                job_id = taken.get(job.key) if job.keep else None
                if job_id is None:
                    job_id = self._ids.next()
                    rows.append(_row_of(job, job_id, now))
                    if job.keep:
                        taken[job.key] = job_id
                ids.append(job_id)
            await inside.executemany(_ADD, rows)
            found = await inside.execute_fetchall(_BY_IDS, (_json(ids),))
        by_id = {job.job_id: job for job in _jobs(found)}
        return [by_id[job_id] for job_id in ids]

    async def move(self, job_id: str, after: JobState, **changes: object) -> Job | None:
        """Puts the job into state ``after``, when its present state allows that.

        ``changes``: attempt, worker_id, dispatched_at, error_code, error_message, draw_seconds.
        ``None`` when there is no such job or it may not go there; nothing is changed then.
        """
        moved = await self.move_many([job_id], after, **changes)
        return moved[0] if moved else None

    async def move_many(
        self, job_ids: Sequence[str], after: JobState, **changes: object
    ) -> list[Job]:
        """`move` for many at once; gives those that moved, in the order of their arrival."""
        unknown = changes.keys() - _CHANGEABLE
        if unknown:
            raise TypeError(f"a job has no changeable field {min(unknown)!r}")
        columns = ["state", "changed_at", *changes]
        sql = _MOVE.format(assignments=", ".join(f"{column} = ?" for column in columns))
        values = [after.value, self._clock(), *changes.values(), _json(job_ids), _BEFORE[after]]
        async with self._database.transaction() as inside:
            rows = await inside.execute_fetchall(sql, values)
        return _jobs(rows)

    async def dispatch_next(self, model_id: str, limit: int) -> list[Job]:
        """Takes the oldest queued jobs of a model: they are dispatched now, one attempt up."""
        now = self._clock()
        async with self._database.transaction() as inside:
            rows = await inside.execute_fetchall(_DISPATCH, (now, now, model_id, limit))
        return _jobs(rows)

    async def take_back(self, job_ids: Sequence[str]) -> None:
        """Undoes `dispatch_next` for jobs that Redis did not keep: no attempt was made."""
        async with self._database.transaction() as inside:
            await inside.execute_fetchall(_TAKE_BACK, (self._clock(), _json(job_ids)))

    async def get(self, job_id: str) -> Job | None:
        row = await self._database.fetch_one("SELECT * FROM jobs WHERE job_id = ?", (job_id,))
        return None if row is None else _job(row)

    async def in_state(self, states: Collection[JobState], limit: int = 10_000) -> list[Job]:
        """The oldest jobs that are in one of the states."""
        return _jobs(await self._database.fetch_all(_IN_STATE, (_json(states), limit)))

    async def in_flight(self, keys: Sequence[str]) -> dict[str, Job]:
        """By key: the kept jobs that are not final, at most one a key."""
        rows = await self._database.fetch_all(_BY_KEYS, (_json(keys),))
        return {job.key: job for job in _jobs(rows)}

    async def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; every state is there. Running totals, no scan."""
        counts = dict.fromkeys(JobState, 0)
        for row in await self._database.fetch_all(_COUNTS):
            counts[JobState(row["state"])] = row["jobs"]
        return counts

    async def cancel_unwanted(self, fingerprints: Mapping[str, str]) -> int:
        """Cancels jobs of before this start whose pictures nobody can be given; how many.

        Those that would not be kept: who waited is gone. And those for other files of a model
        than it has now (``fingerprints``, by model id): no request leads to their keys any more.
        """
        values = (self._clock(), json.dumps(dict(fingerprints)))
        async with self._database.transaction() as inside:
            return len(list(await inside.execute_fetchall(_CANCEL_UNWANTED, values)))

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
                return purged


def _json(values: Iterable[str]) -> str:
    return json.dumps(list(values))


def _row_of(job: NewJob, job_id: str, now: float) -> tuple[object, ...]:
    spec = msgspec.json.encode(job.spec).decode()
    return (
        *(job_id, job.key, spec, job.spec.model, job.fingerprint),
        *(job.keep, job.identity, now),
    )


def _jobs(rows: Iterable[sqlite3.Row]) -> list[Job]:
    """Rows as jobs, in the order of arrival (RETURNING promises none)."""
    return [_job(row) for row in sorted(rows, key=_sequence)]


def _sequence(row: sqlite3.Row) -> int:
    return int(row["sequence"])


def _job(row: sqlite3.Row) -> Job:
    return Job(
        job_id=row["job_id"],
        key=row["key"],
        spec=_decode_spec(row["spec"]),
        fingerprint=row["fingerprint"],
        state=JobState(row["state"]),
        attempt=row["attempt"],
        keep=bool(row["keep"]),
        identity=row["identity"],
        created_at=row["created_at"],
        dispatched_at=row["dispatched_at"],
        changed_at=row["changed_at"],
        worker_id=row["worker_id"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        draw_seconds=row["draw_seconds"],
    )
