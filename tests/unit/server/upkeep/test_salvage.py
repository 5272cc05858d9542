"""A damaged database made anew: what could be read is there, the damaged one beside it."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sdq.protocol.states import JobState
from sdq.server.database import DATABASE_NAME, Database
from sdq.server.library.index import Question
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Turns
from sdq.server.upkeep.damage import problems_in
from sdq.server.upkeep.salvage import rebuild
from sdq.server.upkeep.totals import wrong_totals
from sdq.testing.shelf import Shelf

JOBS = 200
PAGE_BYTES = 4_096


@pytest.fixture
async def path(shelf: Shelf) -> Path:
    await shelf.stock(20, jobs=JOBS)
    return shelf.root / DATABASE_NAME


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM jobs ORDER BY 1")]


def leaf_pages_of(path: Path, table: str) -> list[int]:
    """Pages with rows of a table, by what is written in them."""
    marks = {"jobs": b'{"prompt":"job ', "pictures": b'{"prompt":"picture '}
    data = path.read_bytes()
    pages = range(1, len(data) // PAGE_BYTES)
    found = [n for n in pages if marks[table] in data[n * PAGE_BYTES : (n + 1) * PAGE_BYTES]]
    assert len(found) > 3
    return found


def destroy(path: Path, pages: list[int]) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE_BYTES)
            file.write(random.Random(page).randbytes(PAGE_BYTES))


async def server_id_of(path: Path) -> str:
    database = await Database.open(path)
    await database.close()
    return database.server_id


async def test_all_but_the_damaged_pages_is_saved(path: Path):
    server_id = await server_id_of(path)
    leaves = leaf_pages_of(path, "jobs")
    lost_pages = [leaves[1], leaves[len(leaves) // 2], leaves[-2]]
    data = path.read_bytes()
    lost = sum(
        data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES].count(b'{"prompt":"job ')
        for page in lost_pages
    )
    destroy(path, lost_pages)
    damaged = path.read_bytes()
    saved = rebuild(path)
    assert saved.rows["jobs"] == len(numbers(path)) == JOBS - lost > 0
    assert f"{JOBS - lost} of {JOBS} rows of jobs, 20 of 20" in str(saved).replace(" and", ",")
    assert saved.aside is not None
    assert saved.aside.read_bytes() == damaged
    assert problems_in(path) == []
    assert await server_id_of(path) == server_id


async def test_what_was_saved_is_dispatched_in_fair_turns(path: Path):
    database = await Database.open(path)
    await Turns(database).dispatch_next("shapes", 4)  # 10.0.0.0 was served twice
    await database.close()
    destroy(path, leaf_pages_of(path, "jobs")[-1:])
    rebuild(path)
    database = await Database.open(path)
    table, turns = JobTable(database), Turns(database)
    assert (await table.counts())[JobState.DISPATCHED] == 4
    jobs = await turns.dispatch_next("shapes", 2)
    assert [job.identity for job in jobs] == ["10.0.0.1", "10.0.0.2"]
    left = (await table.counts())[JobState.QUEUED]
    assert len(await turns.dispatch_next("shapes", 1_000)) == left > 0
    await database.close()


async def test_jobs_whose_wants_are_lost_are_wanted_by_who_asked(path: Path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE wants")
        connection.execute("DROP TABLE turns")
        connection.commit()
    saved = rebuild(path)
    assert saved.rows["jobs"] == JOBS
    database = await Database.open(path)
    assert len(await Turns(database).dispatch_next("shapes", 1_000)) == JOBS
    await database.close()


@pytest.mark.parametrize("seed", range(8))
async def test_random_damage_leaves_a_sound_database_with_rows_that_were_there(
    path: Path, seed: int
):
    chance = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection:
        before = dict(connection.execute("SELECT job_id, spec FROM jobs"))
    pages = path.stat().st_size // PAGE_BYTES
    destroy(path, [chance.randrange(1, pages) for _ in range(4)])
    if not problems_in(path):
        return
    rebuild(path)
    assert problems_in(path) == []
    with closing(sqlite3.connect(path)) as connection:
        assert wrong_totals(connection) == []
        after = dict(connection.execute("SELECT job_id, spec FROM jobs"))
    assert after.items() <= before.items()


async def test_a_log_that_was_lost_or_is_there_is_not_mixed_up(path: Path):
    """The old write-ahead log must not be applied to the new file."""
    database = await Database.open(path)
    async with database.transaction() as inside:
        await inside.execute("UPDATE jobs SET state = 'failed' WHERE sequence = 1")
    main, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    await database.close()
    path.write_bytes(main)
    Path(f"{path}-wal").write_bytes(log)  # as after kill -9
    saved = rebuild(path)
    assert not Path(f"{path}-wal").exists()
    assert saved.aside is not None
    assert Path(f"{saved.aside}-wal").read_bytes() == log
    database = await Database.open(path)
    assert (await JobTable(database).counts())[JobState.FAILED] == 1
    await database.close()


@pytest.mark.parametrize("what", ["missing", "folder", "empty", "nonsense"])
async def test_where_nothing_can_be_saved_it_begins_anew(path: Path, what: str):
    path.unlink()
    if what == "folder":
        path.mkdir()
        (path / "notes").write_text("kept")
    elif what != "missing":
        path.write_bytes(b"" if what == "empty" else b"nonsense " * 1_000)
    saved = rebuild(path)
    assert problems_in(path) == []
    assert saved.rows["jobs"] == 0
    if what == "missing":
        assert saved.aside is None
    elif what == "folder":
        assert saved.aside is not None
        assert (saved.aside / "notes").read_text() == "kept"


async def test_twice_in_one_second_keeps_both(path: Path):
    first, second = rebuild(path), rebuild(path)
    assert first.aside != second.aside
    assert first.aside is not None
    assert second.aside is not None
    assert numbers(first.aside) == numbers(second.aside) == numbers(path)


async def test_when_the_new_one_cannot_be_written_the_old_one_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        rebuild(path)
    assert path.read_bytes() == before
    assert not path.with_name(path.name + ".new").exists()


async def test_what_was_saved_can_be_searched(shelf: Shelf, path: Path):
    async with shelf.open() as library:
        (newest,) = (await library.find(Question(limit=1)))[0]
        await library.pin([newest.key], pinned=True)
    destroy(path, leaf_pages_of(path, "jobs")[1:3])
    rebuild(path)
    assert problems_in(path) == []
    async with shelf.open() as library:
        assert len((await library.find(Question("picture")))[0]) == 20
        (kept,) = (await library.find(Question("PICT*", pinned=True)))[0]
        assert (kept.key, kept.number) == (newest.key, newest.number)
