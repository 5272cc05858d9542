"""Who wants a job: what is taken back, what then stops, and what is listed."""

import pytest

from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.server.database import Database
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Turns
from sdq.server.queue.wants import Wants
from sdq.testing.orders import order
from sdq.testing.rig import Clock

S = JobState


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(database: Database, clock: Clock) -> JobTable:
    return JobTable(database, clock=clock)


@pytest.fixture
def turns(database: Database) -> Turns:
    return Turns(database)


@pytest.fixture
def wants(database: Database, clock: Clock) -> Wants:
    return Wants(database, clock=clock)


async def ask(table: JobTable, identity: str, *numbers: int) -> list[str]:
    added = await table.add([order(number, identity) for number in numbers])
    return [job.job_id for job, _ in added]


def ids(jobs: list[Job]) -> list[str]:
    return [job.job_id for job in jobs]


async def test_a_job_that_nobody_wants_any_more_is_cancelled(
    table: JobTable, wants: Wants, clock: Clock
):
    (mine, shared) = await ask(table, "ann", 1, 2)
    await ask(table, "bob", 2)
    clock.now += 5
    assert sorted(await wants.withdraw("ann", [mine, shared, "unknown"])) == [mine, shared]
    cancelled = await wants.cancel_unwanted([mine, shared, "unknown"])
    assert [(job.job_id, job.state, job.changed_at) for job in cancelled] == [
        (mine, S.CANCELLED, clock.now)
    ]
    assert await wants.withdraw("ann", [mine, shared]) == []
    assert await wants.withdraw("bob", [shared]) == [shared]
    assert ids(await wants.cancel_unwanted([shared, mine])) == [shared]


@pytest.mark.parametrize("state", list(S))
async def test_cancelling_touches_no_wanted_job_whatever_its_state(
    table: JobTable, wants: Wants, state: JobState
):
    (job_id,) = await ask(table, "ann", 1)
    if state is S.RUNNING:
        await table.move(job_id, S.DISPATCHED)
    if state is not S.QUEUED:
        await table.move(job_id, state)
    assert await wants.withdraw("bob", [job_id]) == []
    assert await wants.cancel_unwanted([job_id]) == []
    now = await table.get(job_id)
    assert now is not None
    assert now.state is state


@pytest.mark.parametrize("state", [S.DISPATCHED, S.RUNNING])
async def test_jobs_in_workers_hands_are_cancelled_too(
    table: JobTable, wants: Wants, state: JobState
):
    (job_id,) = await ask(table, "ann", 1)
    for step in (S.DISPATCHED, S.RUNNING)[: 1 + (state is S.RUNNING)]:
        await table.move(job_id, step)
    await wants.withdraw("ann", [job_id])
    assert ids(await wants.cancel_unwanted([job_id])) == [job_id]


async def test_what_has_ended_stays_in_ones_list(table: JobTable, wants: Wants):
    (job_id,) = await ask(table, "ann", 1)
    await table.move(job_id, S.SUCCEEDED)
    assert await wants.withdraw("ann", [job_id]) == []
    listed, _ = await wants.list("ann", mine=True, ended=True, limit=9)
    assert [entry.job.job_id for entry in listed] == [job_id]


async def test_each_request_holds_a_job_once(table: JobTable, wants: Wants):
    (job_id,) = await ask(table, "ann", 1)
    await ask(table, "ann", 1)
    await ask(table, "ann", 1)
    await wants.release("ann", [job_id])
    assert await wants.cancel_unwanted([job_id]) == []
    await wants.release("bob", [job_id])
    await wants.release("ann", [job_id])
    assert await wants.cancel_unwanted([job_id]) == []
    await wants.release("ann", [job_id])
    assert ids(await wants.cancel_unwanted([job_id])) == [job_id]


async def test_a_request_that_holds_a_picture_twice_releases_it_twice(
    table: JobTable, wants: Wants
):
    twice = await ask(table, "ann", 1, 1)
    await ask(table, "ann", 1)
    await wants.release("ann", twice)
    assert await wants.cancel_unwanted(twice) == []
    await wants.release("ann", twice[:1])
    assert ids(await wants.cancel_unwanted(twice)) == twice[:1]


async def test_withdrawing_takes_back_all_requests_of_a_person(table: JobTable, wants: Wants):
    (job_id,) = await ask(table, "ann", 1)
    await ask(table, "ann", 1)
    await wants.withdraw("ann", [job_id])
    assert ids(await wants.cancel_unwanted([job_id])) == [job_id]


async def test_all_of_a_persons_jobs_are_withdrawn_in_bounded_steps(
    table: JobTable, turns: Turns, wants: Wants
):
    mine = await ask(table, "ann", *range(5))
    others = await ask(table, "bob", *range(10, 13))
    await turns.dispatch_next("shapes", 2)  # one of each
    await table.move(mine[4], S.SUCCEEDED)
    first = await wants.withdraw_some("ann", 3)
    assert sorted(first) == mine[1:4]
    assert await wants.withdraw_some("ann", 3) == [mine[0]]
    assert await wants.withdraw_some("ann", 3) == []
    assert ids(await wants.cancel_unwanted([*mine, *others])) == mine[:4]


async def test_who_withdraws_stands_in_line_no_more(table: JobTable, turns: Turns, wants: Wants):
    shared, _ = await ask(table, "ann", 1, 2)
    await ask(table, "bob", 1)
    await wants.withdraw("ann", [shared])
    assert [(s.identity, s.waiting) for s in await turns.standings("shapes", 9)] == [
        ("ann", 1),
        ("bob", 1),
    ]
    given = await turns.dispatch_next("shapes", 9)
    assert [job.spec.seed for job in given] == [2, 1]


async def test_somebody_can_take_over_what_another_asked_for(
    table: JobTable, turns: Turns, wants: Wants
):
    (job_id, ended) = await ask(table, "ann", 1, 2)
    await table.move(ended, S.FAILED)
    await wants.adopt("bob", [job_id, ended, "unknown"])
    await wants.adopt("bob", [job_id])
    await wants.withdraw("ann", [job_id])
    assert await wants.cancel_unwanted([job_id]) == []
    assert ids(await turns.dispatch_next("shapes", 9)) == [job_id]
    await wants.release("bob", [job_id])
    assert ids(await wants.cancel_unwanted([job_id])) == [job_id]


async def test_a_list_shows_the_newest_and_counts_the_others(
    table: JobTable, turns: Turns, wants: Wants
):
    mine = await ask(table, "ann", *range(4))
    others = await ask(table, "bob", 10, 11)
    await table.add([order(10, "ann", priority=Priority.HIGH)])
    await turns.dispatch_next("shapes", 1)  # ann's high one: bob's first
    await table.move(mine[2], S.FAILED)

    async def shown(identity: str, *, mine: bool, ended: bool, limit: int = 9):
        listed, more = await wants.list(identity, mine=mine, ended=ended, limit=limit)
        return [entry.job.job_id for entry in listed], more

    everything = [*reversed(others), *reversed(mine)]
    in_flight = [job_id for job_id in everything if job_id != mine[2]]
    assert await shown("ann", mine=False, ended=True) == (everything, 0)
    assert await shown("ann", mine=False, ended=True, limit=2) == (everything[:2], 4)
    assert await shown("ann", mine=False, ended=False) == (in_flight, 0)
    assert await shown("ann", mine=False, ended=False, limit=1) == (in_flight[:1], 4)
    assert await shown("ann", mine=True, ended=False) == (
        [others[0], mine[3], mine[1], mine[0]],
        0,
    )
    assert await shown("ann", mine=True, ended=True, limit=3) == (
        [others[0], mine[3], mine[2]],
        2,
    )
    assert await shown("cat", mine=True, ended=True) == ([], 0)


async def test_a_list_says_what_is_mine_and_how_urgent(table: JobTable, wants: Wants):
    await table.add([order(1, "ann", priority=Priority.HIGH), order(2, "ann")])
    await table.add([order(1, "bob", priority=Priority.LOW)])
    for identity, expected in {
        "ann": [(2, True, "normal"), (1, True, "high")],
        "bob": [(2, False, "normal"), (1, True, "low")],
        "cat": [(2, False, "normal"), (1, False, "high")],
    }.items():
        listed, _ = await wants.list(identity, mine=False, ended=False, limit=9)
        assert [(job.spec.seed, is_mine, priority) for job, is_mine, priority in listed] == expected


async def test_a_purged_job_leaves_no_want_behind_and_its_number_starts_clean(
    database: Database, table: JobTable, turns: Turns, wants: Wants, clock: Clock
):
    (old,) = await ask(table, "ann", 1)
    await ask(table, "bob", 1)
    await table.move(old, S.CANCELLED)
    clock.now += 100
    assert await table.purge(50) == 1
    assert await database.fetch_all("SELECT * FROM wants") == []
    (fresh,) = await ask(table, "cat", 2)  # SQLite gives the freed number again
    listed, _ = await wants.list("bob", mine=False, ended=True, limit=9)
    assert [(entry.job.job_id, entry.is_mine) for entry in listed] == [(fresh, False)]
    assert [s.identity for s in await turns.standings("shapes", 9)] == ["cat"]


async def test_a_deleted_queued_job_leaves_the_line(database: Database, table: JobTable):
    """As `sdq server check --repair` may do with a row that cannot be read."""
    (job_id, _) = await ask(table, "ann", 1, 2)
    async with database.transaction() as inside:
        await inside.execute_fetchall("DELETE FROM jobs WHERE job_id = ?", (job_id,))
    rows = await database.fetch_all("SELECT identity, waiting FROM turns")
    assert [tuple(row) for row in rows] == [("ann", 1)]
    assert len(await database.fetch_all("SELECT * FROM wants")) == 1


async def test_a_damaged_row_hides_no_other_job(database: Database, table: JobTable, wants: Wants):
    mine = await ask(table, "ann", 1, 2, 3)
    async with database.transaction() as inside:
        await inside.execute_fetchall("UPDATE jobs SET spec = '{' WHERE job_id = ?", (mine[1],))
    for only_mine in (False, True):
        listed, _ = await wants.list("ann", mine=only_mine, ended=True, limit=10)
        assert [one.job.job_id for one in listed] == [mine[2], mine[0]]
    assert set(await table.get_many(mine)) == {mine[0], mine[2]}
    assert ids(await table.in_state([S.QUEUED])) == [mine[0], mine[2]]
