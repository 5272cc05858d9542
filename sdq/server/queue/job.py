"""A job as the server sees it: a row of the table, frozen; and what a new one is made of."""

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.server.database import Damaged, damaged
from sdq.spec import ImageSpec

log = logging.getLogger(__name__)

_ID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 26
_RANDOM_BITS = 80

_decode_spec = msgspec.json.Decoder(ImageSpec).decode

RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
"""How priorities are stored: they sort as they are served."""

PRIORITIES = {rank: priority for priority, rank in RANKS.items()}


class NewJob(msgspec.Struct, frozen=True):
    """A picture to be drawn. ``keep`` is False for ``--cache off``: not stored, not shared."""

    key: str
    spec: ImageSpec
    fingerprint: str  # of the model
    keep: bool
    identity: str  # who asked
    priority: Priority = Priority.NORMAL


class Job(msgspec.Struct, frozen=True):
    """A row of the table. Times in seconds since 1970."""

    job_id: str
    key: str
    spec: ImageSpec
    fingerprint: str
    state: JobState
    attempt: int  # counts the dispatches; 0 until the first
    keep: bool
    identity: str
    created_at: float
    dispatched_at: float | None
    changed_at: float | None  # of the state; None: still as it was added
    worker_id: str | None
    error_code: str
    error_message: str
    draw_seconds: float | None
    failures: int = 0  # attempts that went wrong
    deaths: int = 0  # workers that died while they drew it


class Added(NamedTuple):
    """A job that was asked for, and whether it came into being by that."""

    job: Job
    is_new: bool


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


def json_list(values: Iterable[object]) -> str:
    """Values as SQLite's ``json_each`` reads them."""
    return json.dumps(list(values))


def row_of(job: NewJob, job_id: str, now: float) -> tuple[object, ...]:
    """The columns that a new job begins with."""
    spec = msgspec.json.encode(job.spec).decode()
    return (
        *(job_id, job.key, spec, job.spec.model, job.fingerprint),
        *(job.keep, job.identity, now),
    )


def jobs_of(rows: Iterable[sqlite3.Row]) -> list[Job]:
    """Rows as jobs, in the order of arrival (RETURNING promises none)."""
    return [job_of(row) for row in sorted(rows, key=_sequence)]


def readable_jobs_of(rows: Iterable[sqlite3.Row]) -> list[Job]:
    """`jobs_of`, without the rows that are damaged: one of them must not hide all others."""
    jobs = []
    for row in sorted(rows, key=_sequence):
        try:
            jobs.append(job_of(row))
        except Damaged as error:
            log.debug("%s", error)  # the check names it; here it would be told each second
    return jobs


def _sequence(row: sqlite3.Row) -> int:
    return int(row["sequence"])


def job_of(row: sqlite3.Row) -> Job:
    """Raises `StackError` for a row that is damaged."""
    try:
        spec, state = _decode_spec(row["spec"]), JobState(row["state"])
    except (ValueError, msgspec.MsgspecError) as error:
        raise damaged(f"the row of job {row['job_id']} is damaged: {error}") from error
    return Job(
        job_id=row["job_id"],
        key=row["key"],
        spec=spec,
        fingerprint=row["fingerprint"],
        state=state,
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
        failures=row["failures"],
        deaths=row["deaths"],
    )
