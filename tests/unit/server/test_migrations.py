"""Databases of every older form: opened by this sdq, everything is there and goes on.

Each form has one list of statements in `FORMS` that fills all of its tables, in the words of
that form. A new migration needs one more entry; the test that counts them says so.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from sdq.protocol.states import FINAL_STATES, JobState
from sdq.server.database import DATABASE_NAME, Database, migrations
from sdq.server.library.files import LIBRARY_NAME, sha256_of
from sdq.server.library.library import Library, LibraryStats, Question
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Turns
from sdq.server.queue.wants import Wants
from sdq.server.search_text import facts_of
from sdq.server.upkeep.check import check
from sdq.server.upkeep.damage import fresh, version_of
from sdq.spec import SpecDraft, key_of
from sdq.testing.transport import FINGERPRINT, drawn, resolved

MODEL = "shapes"
STATES = [state.value for state in JobState]
PEOPLE = ["10.0.0.1", "10.0.0.2"]


def job_values(number: int) -> tuple[object, ...]:
    """Job ``number``: every state comes with every person."""
    spec = resolved(SpecDraft(prompt=f"job {number}"))
    state, identity = STATES[number % len(STATES)], PEOPLE[number // len(STATES)]
    attempt = 0 if state == "queued" else 1
    return (
        *(f"{number:026d}", key_of(spec, FINGERPRINT), msgspec.json.encode(spec).decode()),
        *(MODEL, FINGERPRINT, state, attempt, 1, identity, 1_000.0 + number),
        *(None if state == "queued" else 2_000.0, 3_000.0, "worker-1", "", "", None),
    )


JOBS = [job_values(number) for number in range(len(STATES) * len(PEOPLE))]
PICTURE = resolved(SpecDraft(prompt="a picture"))
IMAGE = drawn(PICTURE)
KEY = key_of(PICTURE, FINGERPRINT)


def fill_1(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO meta VALUES ('server_id', 'abcdef0123456789')")
    columns = (
        "job_id, key, spec, model_id, fingerprint, state, attempt, keep, identity, created_at,"
        " dispatched_at, changed_at, worker_id, error_code, error_message, draw_seconds"
    )
    marks = ", ".join("?" * len(JOBS[0]))
    connection.executemany(f"INSERT INTO jobs ({columns}) VALUES ({marks})", JOBS)
    connection.execute(
        "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(KEY, msgspec.json.encode(PICTURE).decode(), "a picture", len(IMAGE)),
            *(sha256_of(IMAGE), 0.5, 4_000.0, 5_000.0),
        ),
    )


def fill_2(connection: sqlite3.Connection) -> None:
    """As `fill_1`, and the second person wants one of the first's jobs, too."""
    fill_1(connection)
    connection.execute(
        "INSERT INTO wants SELECT sequence, identity, model_id, 1, 1, CASE"
        " WHEN state = 'queued' THEN 0 WHEN state IN ('dispatched', 'running') THEN 1 ELSE 2 END"
        " FROM jobs"
    )
    connection.execute("INSERT INTO wants VALUES (1, ?, ?, 0, 2, 0)", (PEOPLE[1], MODEL))


def fill_3(connection: sqlite3.Connection) -> None:
    """As `fill_2`, but a row of the library has its number, its words and its facts."""
    connection.execute(
        "CREATE TEMP TABLE pictures (key, spec, text, size, sha256, seconds, created, used)"
    )
    fill_2(connection)
    columns = "number, key, spec, words, negative_words, plain_facts, size_bytes, sha256"
    connection.execute(
        f"INSERT INTO main.pictures ({columns}, draw_seconds, created_at, last_used_at)"
        f" SELECT 4000000000, key, spec, text, '', '{facts_of(PICTURE)}', size, sha256, seconds,"
        " created, used FROM temp.pictures"
    )
    connection.execute("DROP TABLE temp.pictures")


FORMS = {1: fill_1, 2: fill_2, 3: fill_3}


@pytest.fixture(params=sorted(FORMS))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data directory with a database of an older form."""
    with closing(fresh(tmp_path / DATABASE_NAME, request.param)) as connection:
        assert version_of(connection) == request.param
        FORMS[request.param](connection)
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        for table in tables:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0], table
    picture = tmp_path / LIBRARY_NAME / KEY[:2] / f"{KEY}.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(IMAGE)
    return tmp_path


def test_every_form_is_tried():
    assert sorted(FORMS) == [step.number for step in migrations()]


async def test_everything_is_there_and_goes_on(old: Path):
    database = await Database.open(old / DATABASE_NAME)
    table, turns = JobTable(database), Turns(database)
    assert database.server_id == "abcdef0123456789"
    assert await table.counts() == dict.fromkeys(JobState, len(PEOPLE))
    jobs = {job.job_id: job for state in JobState for job in await table.in_state([state])}
    for values in JOBS:
        job = jobs[str(values[0])]
        assert (job.key, job.state, job.identity) == (values[1], values[5], values[8])
        assert (job.created_at, job.spec.prompt) == (values[9], f"job {int(job.job_id)}")
        assert (job.failures, job.deaths) == (0, 0)
    await see_the_picture(database, old)
    await see_the_people(database)
    queued = await table.in_state([JobState.QUEUED])
    given = await turns.dispatch_next(MODEL, 100)
    assert {job.job_id for job in given} == {job.job_id for job in queued}
    assert {job.identity for job in given} == set(PEOPLE)
    for job in given:
        assert await table.move(job.job_id, JobState.SUCCEEDED) is not None
    assert (await table.counts())[JobState.QUEUED] == 0
    await database.close()


async def see_the_picture(database: Database, root: Path) -> None:
    library = await Library.open(
        database,
        root / LIBRARY_NAME,
        retention_days=30,
        max_bytes=10**9,
        memory_bytes=0,
        clock=lambda: 6_000.0,
    )
    assert await library.stats() == LibraryStats(1, len(IMAGE))
    stored = await library.get(KEY)
    assert stored is not None
    assert (stored.image, stored.spec) == (IMAGE, PICTURE)
    assert [picture.key for picture in (await library.find(Question("PICTURE")))[0]] == [KEY]
    await library.close()


async def see_the_people(database: Database) -> None:
    """Whoever asked before there were wants finds the jobs as their own."""
    for number, identity in enumerate(PEOPLE):
        listed, _ = await Wants(database).list(identity, mine=True, ended=True, limit=100)
        own = {f"{number * len(STATES) + place:026d}" for place in range(len(STATES))}
        assert own <= {entry.job.job_id for entry in listed}
        assert all(entry.is_mine for entry in listed)


def test_an_older_form_can_be_checked_and_mended(old: Path):
    def quiet(_done: int, _total: int) -> None:
        pass

    assert list(check(old, repair=False, told=quiet)) == []
    path = old / DATABASE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER jobs_moved")
    (found,) = check(old, repair=True, told=quiet)
    assert f"{len(JOBS)} of {len(JOBS)} rows of jobs" in found.mended
    with closing(sqlite3.connect(path)) as connection:
        assert version_of(connection) == migrations()[-1].number
        people = connection.execute("SELECT DISTINCT identity FROM wants ORDER BY 1").fetchall()
        assert [row[0] for row in people] == PEOPLE
        open_states = [state.value for state in JobState if state not in FINAL_STATES]
        marks = ", ".join("?" * len(open_states))
        unwanted = connection.execute(
            f"SELECT count(*) FROM jobs WHERE state IN ({marks})"
            " AND sequence NOT IN (SELECT sequence FROM wants)",
            open_states,
        ).fetchone()
        assert unwanted == (0,)
    assert list(check(old, repair=False, told=quiet)) == []
