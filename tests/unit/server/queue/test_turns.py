"""Fair turns: whoever was served least recently is next; a person's own order is the person's."""

import asyncio
import random
import re
from pathlib import Path

import pytest

from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.server.database import Database
from sdq.server.queue import jobs as jobs_module
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Standing, Turns
from sdq.server.queue.wants import Wants
from sdq.testing.orders import order
from sdq.testing.rig import Clock

S = JobState
HIGH, LOW = Priority.HIGH, Priority.LOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(database: Database, clock: Clock) -> JobTable:
    return JobTable(database, clock=clock)


@pytest.fixture
def turns(database: Database, clock: Clock) -> Turns:
    return Turns(database, clock=clock)


async def ask(table: JobTable, identity: str, *numbers: int, priority: Priority = Priority.NORMAL):
    await table.add([order(number, identity, priority=priority) for number in numbers])


def seeds(jobs: list[Job]) -> list[int]:
    return [job.spec.seed for job in jobs]


async def test_a_dispatched_job_says_so(table: JobTable, turns: Turns, clock: Clock):
    await table.add([order(n, model=("a", "b")[n % 2]) for n in range(6)])
    clock.now += 1
    first = await turns.dispatch_next("a", 2)
    assert seeds(first) == [0, 2]
    assert {(job.state, job.attempt, job.dispatched_at, job.changed_at) for job in first} == {
        (S.DISPATCHED, 1, clock.now, clock.now)
    }
    assert [await table.get(job.job_id) for job in first] == first
    assert seeds(await turns.dispatch_next("a", 10)) == [4]
    assert await turns.dispatch_next("a", 10) == []
    assert await turns.dispatch_next("b", 0) == []
    assert await table.queued_models() == ["b"]


async def test_people_take_turns_whatever_they_have_in_line(table: JobTable, turns: Turns):
    await ask(table, "ann", *range(6))
    await ask(table, "bob", 10, 11)
    await ask(table, "cat", 20, 21, 22)
    assert seeds(await turns.dispatch_next("shapes", 20)) == [0, 10, 20, 1, 11, 21, 2, 22, 3, 4, 5]


@pytest.mark.parametrize("step", [1, 2, 5])
async def test_turns_go_on_from_one_dispatch_to_the_next(table: JobTable, turns: Turns, step: int):
    await ask(table, "ann", *range(4))
    await ask(table, "bob", 10, 11)
    given: list[int] = []
    while jobs := await turns.dispatch_next("shapes", step):
        given += seeds(jobs)
    assert given == [0, 10, 1, 11, 2, 3]


async def test_a_single_picture_goes_before_the_rest_of_anothers_500(table: JobTable, turns: Turns):
    await ask(table, "ann", *range(500))
    assert seeds(await turns.dispatch_next("shapes", 3)) == [0, 1, 2]
    await ask(table, "bob", 1_000)
    assert seeds(await turns.dispatch_next("shapes", 3)) == [1_000, 3, 4]


async def test_who_comes_back_goes_before_who_was_served_since(table: JobTable, turns: Turns):
    await ask(table, "ann", 0)
    await turns.dispatch_next("shapes", 1)
    await ask(table, "bob", *range(10, 15))
    assert seeds(await turns.dispatch_next("shapes", 1)) == [10]
    await ask(table, "ann", 1)
    await ask(table, "cat", 20)
    assert [s.identity for s in await turns.standings("shapes", 9)] == ["cat", "ann", "bob"]
    assert seeds(await turns.dispatch_next("shapes", 4)) == [20, 1, 11, 12]


async def test_priority_orders_only_ones_own_jobs(table: JobTable, turns: Turns):
    await ask(table, "ann", 0, 1, priority=LOW)
    await ask(table, "ann", 2)
    await ask(table, "ann", 3, 4, priority=HIGH)
    await ask(table, "bob", 10, 11, priority=LOW)
    assert len(await turns.line("shapes", "ann", 9)) == 5
    assert seeds(await turns.dispatch_next("shapes", 7)) == [3, 10, 4, 11, 2, 0, 1]


async def test_asking_again_with_a_higher_priority_raises_it_and_a_lower_one_does_not_sink_it(
    table: JobTable, turns: Turns
):
    await ask(table, "ann", *range(4))
    await ask(table, "ann", 2, priority=HIGH)
    await ask(table, "ann", 0, priority=LOW)
    assert seeds(await turns.dispatch_next("shapes", 4)) == [2, 0, 1, 3]


async def test_a_shared_job_stands_in_two_lines_and_is_given_once(table: JobTable, turns: Turns):
    await ask(table, "ann", 0, 1, 2, 7)
    await ask(table, "bob", 7, priority=HIGH)  # the last of ann's line is the first of bob's
    assert await turns.standings("shapes", 9) == [Standing("ann", 0, 4), Standing("bob", 0, 1)]
    assert seeds(await turns.dispatch_next("shapes", 9)) == [0, 7, 1, 2]
    assert await turns.standings("shapes", 9) == []


async def test_the_turn_is_theirs_in_whose_line_the_job_was_first(table: JobTable, turns: Turns):
    await ask(table, "ann", 0, 1)
    await ask(table, "bob", 0, 10)
    assert seeds(await turns.dispatch_next("shapes", 1)) == [0]
    assert seeds(await turns.dispatch_next("shapes", 9)) == [10, 1]


async def test_models_have_turns_of_their_own(table: JobTable, turns: Turns):
    await table.add([order(n, "ann", model="a") for n in range(3)])
    await turns.dispatch_next("a", 3)
    await table.add([order(n, who, model="b") for n, who in ((1, "bob"), (2, "ann"))])
    assert [s.identity for s in await turns.standings("b", 9)] == ["ann", "bob"]
    assert await turns.standings("a", 9) == []


async def test_what_had_its_turn_goes_first_and_costs_nobody_another_one(
    table: JobTable, turns: Turns
):
    await ask(table, "ann", 0, 1, 2)
    await ask(table, "bob", 10)
    first = await turns.dispatch_next("shapes", 3)
    assert seeds(first) == [0, 10, 1]
    back = await table.take_back([job.job_id for job in first[:2]])
    assert await turns.going_first("shapes", 9) == [job.job_id for job in back]
    await ask(table, "cat", 20)
    again = await turns.dispatch_next("shapes", 4)
    assert [(job.spec.seed, job.attempt) for job in again] == [(0, 2), (10, 2), (20, 1), (2, 1)]
    assert await turns.going_first("shapes", 9) == []


async def test_concurrent_dispatches_take_no_job_twice(table: JobTable, turns: Turns):
    await ask(table, "ann", *range(10))
    await ask(table, "bob", *range(10, 20))
    taken = await asyncio.gather(*(turns.dispatch_next("shapes", 3) for _ in range(10)))
    assert sorted(seed for batch in taken for seed in seeds(batch)) == list(range(20))


async def test_a_line_is_told_in_the_order_in_which_it_is_given_out(table: JobTable, turns: Turns):
    await ask(table, "ann", 0, 1, 2)
    await ask(table, "ann", 3, priority=HIGH)
    line = await turns.line("shapes", "ann", 3)
    assert line == [job.job_id for job in await turns.dispatch_next("shapes", 3)]
    assert await turns.line("shapes", "bob", 3) == []
    assert await turns.standings("shapes", 0) == []


async def test_a_wrong_count_of_who_waits_holds_up_nobody(
    database: Database, table: JobTable, turns: Turns
):
    """As in a file that somebody mended by hand."""
    await ask(table, "bob", 10, 11)
    async with database.transaction() as inside:
        await inside.execute_fetchall("INSERT INTO turns VALUES ('shapes', 'ann', 0, 5)")
    given: list[int] = []
    for _ in range(8):
        given += seeds(await turns.dispatch_next("shapes", 1))
    assert given == [10, 11]


async def test_a_damaged_row_fails_and_holds_up_nobody(
    database: Database, table: JobTable, turns: Turns
):
    await ask(table, "ann", 1, 2, 3)
    await turns.dispatch_next("shapes", 1)
    back = await table.in_state([S.DISPATCHED])
    await table.take_back([job.job_id for job in back])  # it goes first
    async with database.transaction() as inside:
        await inside.execute_fetchall("UPDATE jobs SET spec = '{' WHERE sequence < 3")
    given = [await turns.dispatch_next("shapes", 2) for _ in range(3)]
    assert [seeds(jobs) for jobs in given if jobs] == [[3]]
    rows = await database.fetch_all("SELECT state, error_code, error_message FROM jobs")
    assert [row["state"] for row in rows] == ["failed", "failed", "dispatched"]
    assert rows[0]["error_code"] == "stack"
    assert "damaged" in rows[0]["error_message"]
    assert (await table.counts())[S.QUEUED] == 0
    assert await turns.standings("shapes", 5) == []


@pytest.mark.parametrize("was_given_before", [False, True])
async def test_jobs_on_a_damaged_page_are_passed_over(tmp_path: Path, was_given_before: bool):
    path = tmp_path / "sdq.sqlite3"
    database = await Database.open(path)
    table, turns = JobTable(database), Turns(database)
    await ask(table, "ann", *range(40))
    if was_given_before:
        given = await turns.dispatch_next("shapes", 40)
        await table.take_back([job.job_id for job in given])
    await database.close()
    lost = damage_a_page_of_jobs(path)
    assert 0 < len(lost) < 20
    database = await Database.open(path)
    try:
        table, turns = JobTable(database), Turns(database)
        found: list[int] = []
        for _ in range(60):
            found += seeds(await turns.dispatch_next("shapes", 2))
        # Its neighbours cannot grow: those wait for a repair, too.
        assert {0, 1, 38, 39} <= set(found) <= set(range(40)) - lost
        assert len(found) == len(set(found))
        out = await table.in_state([S.DISPATCHED])
        assert seeds(out) == sorted(found)  # what else looks at them finds them too
        ids = [job.job_id for job in out]
        assert set(await table.get_many(ids)) == set(ids)
    finally:
        await database.close()


def damage_a_page_of_jobs(path: Path) -> set[int]:
    """Writes nonsense over one page of rows; the seeds of the jobs that were on it."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    pages = [data[start : start + size] for start in range(0, len(data), size)]
    rows = [number for number, page in enumerate(pages) if page.count(b'{"prompt":"') > 1]
    number = rows[len(rows) // 2]
    lost = {int(seed) for seed in re.findall(rb'"seed":(\d+)', pages[number])}
    data[number * size : (number + 1) * size] = random.Random(1).randbytes(size)
    path.write_bytes(data)
    return lost


async def test_old_turns_of_people_who_wait_for_nothing_are_forgotten(
    database: Database, table: JobTable, turns: Turns, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jobs_module, "REMEMBERED_TURNS", 3)
    for number in range(6):
        await ask(table, f"person-{number}", number)
    await ask(table, "person-0", 100)
    await turns.dispatch_next("shapes", 6)
    await ask(table, "left", 200)
    left = await table.in_flight([order(200).key])
    await Wants(database).withdraw("left", [job.job_id for job in left.values()])
    await table.purge(1_000)
    rows = await database.fetch_all("SELECT identity, waiting FROM turns ORDER BY identity")
    assert [tuple(row) for row in rows] == [
        ("person-0", 1),
        ("person-2", 0),
        ("person-3", 0),
        ("person-4", 0),
        ("person-5", 0),
    ]
    await ask(table, "person-1", 300)  # a newcomer again
    assert seeds(await turns.dispatch_next("shapes", 1)) == [300]
