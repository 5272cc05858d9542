"""The job table: nothing accepted is lost, one key is one job in flight."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import msgspec
import pytest

from sdq.errors import ServerBusy, StackError
from sdq.protocol.model import JobId
from sdq.protocol.states import FINAL_STATES, TRANSITIONS, JobState, may_follow
from sdq.server.database import Database
from sdq.server.queue import jobs as jobs_module
from sdq.server.queue.jobs import Job, JobIds, JobTable, NewJob
from sdq.server.queue.turns import Turns
from sdq.server.queue.wants import Wants
from sdq.testing.orders import order
from sdq.testing.rig import Clock

S = JobState


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(database: Database, clock: Clock) -> Turns:
    return Turns(database, clock=clock)


@pytest.fixture
def table(database: Database, clock: Clock) -> JobTable:
    return JobTable(database, clock=clock)


async def add(table: JobTable, jobs: list[NewJob]) -> list[Job]:
    return [job for job, _ in await table.add(jobs)]


async def bring(table: JobTable, job: Job, state: JobState) -> None:
    """The job on the shortest way from QUEUED into a state."""
    if state in (S.DISPATCHED, S.RUNNING):
        await table.move(job.job_id, S.DISPATCHED)
    if state is not S.DISPATCHED and state is not S.QUEUED:
        assert await table.move(job.job_id, state) is not None


async def test_an_added_job_is_there_with_all_its_fields(table: JobTable, clock: Clock):
    (job,) = await add(table, [order(1)])
    assert job == Job(
        job_id=job.job_id,
        key=order(1).key,
        spec=order(1).spec,
        fingerprint="f" * 64,
        state=S.QUEUED,
        attempt=0,
        keep=True,
        identity="127.0.0.1",
        created_at=clock.now,
        dispatched_at=None,
        changed_at=None,
        worker_id=None,
        error_code="",
        error_message="",
        draw_seconds=None,
    )
    assert await table.get(job.job_id) == job
    assert await table.get("none") is None
    assert await table.add([]) == []


async def test_equal_keys_are_one_job_in_flight(table: JobTable):
    first = await add(table, [order(1), order(2), order(1)])
    assert first[0] == first[2] != first[1]
    second = await add(table, [order(2), order(3)])
    assert second[0] == first[1]
    assert (await table.counts())[S.QUEUED] == 3
    assert await table.in_flight([order(n).key for n in (1, 3, 9)]) == {
        order(1).key: first[0],
        order(3).key: second[1],
    }


async def test_concurrent_adds_of_one_key_give_one_job(table: JobTable):
    answers = await asyncio.gather(*(add(table, [order(1), order(n)]) for n in range(2, 22)))
    assert len({answer[0].job_id for answer in answers}) == 1
    assert len({answer[1].job_id for answer in answers}) == 20
    assert (await table.counts())[S.QUEUED] == 21


async def test_what_is_not_kept_is_shared_with_nobody(table: JobTable):
    jobs = await add(
        table, [order(1, keep=False), order(1, keep=False), order(1), order(1, keep=False)]
    )
    assert len({job.job_id for job in jobs}) == 4
    assert await table.in_flight([order(1).key]) == {order(1).key: jobs[2]}


@pytest.mark.parametrize("state", list(S))
async def test_a_key_is_free_again_when_its_job_is_final(table: JobTable, state: JobState):
    (first,) = await add(table, [order(1)])
    await bring(table, first, state)
    (second,) = await add(table, [order(1)])
    assert (second.job_id == first.job_id) == (state not in FINAL_STATES)


@pytest.mark.parametrize(("before", "after"), list(product(S, S)))
async def test_only_the_moves_of_the_table_of_states_are_made(
    table: JobTable, before: JobState, after: JobState
):
    (job,) = await add(table, [order(1)])
    await bring(table, job, before)
    moved = await table.move(job.job_id, after, error_code="x")
    now = await table.get(job.job_id)
    assert now is not None
    if may_follow(before, after):
        assert moved == now
        assert (now.state, now.error_code) == (after, "x")
    else:
        assert moved is None
        assert (now.state, now.error_code) == (before, "")


async def test_a_move_carries_its_changes(table: JobTable, clock: Clock):
    (job,) = await add(table, [order(1)])
    clock.now += 5
    await table.move(job.job_id, S.DISPATCHED)
    moved = await table.move(job.job_id, S.RUNNING, worker_id="gpu-1")
    assert moved is not None
    assert (moved.worker_id, moved.attempt, moved.changed_at) == ("gpu-1", 0, clock.now)
    back = await table.move(job.job_id, S.QUEUED, worker_id=None)
    assert back is not None
    assert back.worker_id is None
    assert await table.move("unknown", S.FAILED) is None
    for protected in ("key", "attempt", "state"):
        with pytest.raises(TypeError, match=f"'{protected}'"):
            await table.move(job.job_id, S.FAILED, **{protected: "another"})


async def test_failures_and_deaths_are_added_to_and_a_refused_move_adds_nothing(table: JobTable):
    (job,) = await add(table, [order(1)])
    for failures, deaths in ((1, 0), (1, 1), (0, 2)):
        await table.move(job.job_id, S.DISPATCHED)
        await table.move(job.job_id, S.QUEUED, failures=failures, deaths=deaths)
    assert await table.move(job.job_id, S.QUEUED, failures=1, deaths=1) is None
    now = await table.get(job.job_id)
    assert now is not None
    assert (now.failures, now.deaths) == (2, 3)


async def test_what_is_taken_back_waits_again_and_the_attempt_is_never_given_anew(
    table: JobTable, turns: Turns, clock: Clock
):
    jobs = await add(table, [order(n) for n in range(4)])
    ids = [job.job_id for job in jobs]
    await turns.dispatch_next("shapes", 3)
    await table.move(ids[1], S.RUNNING, worker_id="gpu-1")
    await table.move(ids[2], S.SUCCEEDED)
    clock.now += 5
    back = await table.take_back([*reversed(ids), "unknown"])
    assert [job.job_id for job in back] == ids[:2]
    assert {(job.state, job.attempt, job.worker_id, job.failures, job.deaths) for job in back} == {
        (S.QUEUED, 1, None, 0, 0)
    }
    assert back[0].changed_at == clock.now
    again = await turns.dispatch_next("shapes", 2)
    assert [(job.job_id, job.attempt) for job in again] == [(ids[0], 2), (ids[1], 2)]


async def test_of_two_equal_events_one_is_told(table: JobTable):
    (job,) = await add(table, [order(1)])
    moved = await asyncio.gather(*(table.move(job.job_id, S.SUCCEEDED) for _ in range(10)))
    assert len([found for found in moved if found is not None]) == 1


async def test_many_are_moved_at_once(table: JobTable):
    jobs = await add(table, [order(n) for n in range(5)])
    await table.move(jobs[1].job_id, S.CANCELLED)
    ids = [job.job_id for job in reversed(jobs)]
    moved = await table.move_many([*ids, "unknown"], S.FAILED, error_code="no_worker")
    assert [job.job_id for job in moved] == [jobs[n].job_id for n in (0, 2, 3, 4)]
    assert await table.move_many([], S.FAILED) == []


async def test_a_new_start_cancels_what_nobody_can_be_given(
    table: JobTable, turns: Turns, database: Database
):
    jobs = await add(
        table, [order(0), order(1, keep=False), order(2, model="b"), order(3, model="gone")]
    )
    await turns.dispatch_next("b", 1)
    done, unwanted = await add(table, [order(4, model="b"), order(5)])
    await table.move(done.job_id, S.SUCCEEDED)
    await Wants(database).withdraw("127.0.0.1", [unwanted.job_id])  # killed before the cancel
    fingerprints = {"shapes": jobs[0].fingerprint, "b": "0" * 64}
    assert await table.cancel_stale(fingerprints) == 3
    assert await table.cancel_stale(fingerprints) == 0
    found = await table.get_many([job.job_id for job in [*jobs, done, unwanted]])
    states = [found[job.job_id].state for job in [*jobs, done, unwanted]]
    assert states == [S.QUEUED, S.CANCELLED, S.CANCELLED, S.QUEUED, S.SUCCEEDED, S.CANCELLED]


async def test_whoever_asks_first_makes_the_job_and_the_next_one_joins_it(table: JobTable):
    ((mine, is_new),) = await table.add([order(1, "ann")])
    assert is_new
    added = await table.add([order(1, "bob"), order(2, "bob"), order(2, "bob")])
    assert [is_new for _, is_new in added] == [False, True, True]
    assert added[0].job == mine
    assert added[1].job == added[2].job


async def test_a_full_queue_takes_no_new_job_and_still_lets_others_join(table: JobTable):
    await table.add([order(n) for n in range(3)], max_queued=3)
    with pytest.raises(ServerBusy, match="3 pictures are waiting") as refused:
        await table.add([order(2), order(3)], max_queued=3)
    assert refused.value.hint
    assert (await table.counts())[S.QUEUED] == 3
    assert not (await table.add([order(2)], max_queued=3))[0].is_new
    await table.move((await table.in_state([S.QUEUED]))[0].job_id, S.CANCELLED)
    assert (await table.add([order(3)], max_queued=3))[0].is_new


async def test_a_job_whose_picture_is_there_has_succeeded_and_leaves_the_key_free(
    table: JobTable, turns: Turns, clock: Clock
):
    done = await table.add_done([order(1), order(2), order(1)])
    assert [job.key for job in done] == [order(1).key, order(2).key, order(1).key]
    assert {(job.state, job.changed_at) for job in done} == {(S.SUCCEEDED, clock.now)}
    assert await table.in_flight([order(1).key]) == {}
    assert await turns.dispatch_next("shapes", 5) == []
    assert (await table.add([order(1)]))[0].is_new
    clock.now += 100
    assert await table.purge(50) == 3
    assert await table.add_done([]) == []


async def test_jobs_by_state_come_oldest_first(table: JobTable):
    jobs = await add(table, [order(n) for n in range(5)])
    await table.move(jobs[3].job_id, S.DISPATCHED)
    await table.move(jobs[1].job_id, S.FAILED)
    found = await table.in_state([S.QUEUED, S.DISPATCHED])
    assert [job.spec.seed for job in found] == [0, 2, 3, 4]
    assert [job.spec.seed for job in await table.in_state([S.QUEUED], limit=2)] == [0, 2]
    assert await table.in_state([]) == []


async def test_purging_forgets_old_final_jobs_only(
    table: JobTable, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jobs_module, "PURGE_BATCH", 2)
    jobs = await add(table, [order(n) for n in range(8)])
    await table.move_many([job.job_id for job in jobs[:5]], S.FAILED)
    clock.now += 100
    await table.move(jobs[5].job_id, S.CANCELLED)
    assert await table.purge(50) == 5
    assert await table.purge(50) == 0
    assert {state: n for state, n in (await table.counts()).items() if n} == {
        S.QUEUED: 2,
        S.CANCELLED: 1,
    }


async def test_a_restarted_server_finds_its_jobs(tmp_path: Path):
    database = await Database.open(tmp_path / "db")
    jobs = await add(JobTable(database), [order(n) for n in range(3)])
    await database.close()
    database = await Database.open(tmp_path / "db")
    table = JobTable(database)
    assert await table.in_state([S.QUEUED]) == jobs
    assert [job.job_id for job in await add(table, [order(0)])] == [jobs[0].job_id]
    await database.close()


ADDING = """
import asyncio, pathlib, sys
from sdq.server.database import Database
from sdq.server.queue.jobs import JobTable, NewJob
from sdq.spec import ImageSpec
async def main():
    table = JobTable(await Database.open(pathlib.Path(sys.argv[1])))
    for number in range(0, 10_000, 10):
        specs = [
            ImageSpec("a", "", "shapes", 128, 128, 20, 4.0, "ddim", number + n) for n in range(10)
        ]
        jobs = [NewJob(f"{s.seed:064x}", s, "f" * 64, True, "") for s in specs]
        for job, _ in await table.add(jobs):
            print(job.job_id, flush=True)
asyncio.run(main())
"""


def start_adding(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ADDING, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_accepted_jobs_outlive_kill_9_and_a_request_is_there_whole(tmp_path: Path):
    with start_adding(tmp_path / "db") as process:
        assert process.stdout is not None
        accepted = [process.stdout.readline().strip() for _ in range(35)]
        process.send_signal(signal.SIGKILL)
        accepted += [line for line in process.stdout.read().split() if len(line) == 26]
    database = await Database.open(tmp_path / "db")
    table = JobTable(database)
    found = [job.job_id for job in await table.in_state([S.QUEUED])]
    assert found[: len(accepted)] == accepted
    assert len(found) % 10 == 0
    await database.close()


async def test_a_full_disk_is_said_in_words_and_adds_none(database: Database, table: JobTable):
    await add(table, [order(0)])
    pages = await database.fetch_one("PRAGMA page_count")
    assert pages is not None
    await database.fetch_all(f"PRAGMA max_page_count = {pages[0] + 2}")
    with pytest.raises(StackError, match="is full"):
        await add(table, [order(n) for n in range(1, 200)])
    assert (await table.counts())[S.QUEUED] == 1
    await database.fetch_all("PRAGMA max_page_count = 100000")
    assert len(await add(table, [order(n) for n in range(1, 200)])) == 199


async def test_a_cancelled_add_adds_all_or_none(table: JobTable):
    for pause in range(30):
        before = (await table.counts())[S.QUEUED]
        task = asyncio.create_task(table.add([order(pause * 10 + n) for n in range(5)]))
        for _ in range(pause % 15):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert (await table.counts())[S.QUEUED] - before in (0, 5)


def test_ids_sort_by_time_and_never_repeat():
    clock = Clock()
    ids = JobIds(clock)

    def made() -> Iterator[str]:
        for step in (0.0, 0.0, 0.002, -50.0, 0.0, 100.0):
            clock.now += step
            yield from (ids.next() for _ in range(50))

    found = list(made())
    assert found == sorted(set(found))
    assert all(msgspec.convert(job_id, JobId) == job_id for job_id in found)
    assert {len(job_id) for job_id in found} == {26}
    other = JobIds(clock)
    assert other.next() not in found


def test_the_states_of_the_indices_are_those_of_the_protocol():
    assert set(TRANSITIONS) == set(S)
    assert all(f"'{state}'" in jobs_module._FINAL for state in FINAL_STATES)
    assert all(f"'{state}'" in jobs_module.IN_FLIGHT for state in set(S) - FINAL_STATES)


async def test_a_move_of_another_attempt_changes_nothing(table: JobTable):
    (job,) = await add(table, [order(1)])
    await table.move(job.job_id, S.DISPATCHED)
    assert await table.move(job.job_id, S.QUEUED, if_attempt=job.attempt + 1) is None
    assert (await table.counts_of("shapes"))[S.DISPATCHED] == 1
    assert await table.move(job.job_id, S.QUEUED, if_attempt=job.attempt) is not None
    assert (await table.counts_of("shapes"))[S.DISPATCHED] == 0
