"""The job table: nothing accepted is lost, one key is one job in flight."""

import asyncio
import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sdq.errors import StackError
from sdq.protocol.model import JobId
from sdq.protocol.states import FINAL_STATES, TRANSITIONS, JobState, may_follow
from sdq.server import jobs as jobs_module
from sdq.server.database import Database
from sdq.server.jobs import Job, JobIds, JobTable, NewJob
from sdq.spec import ImageSpec
from sdq.testing.rig import Clock

S = JobState
SPEC = ImageSpec("a red circle", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)


def new(number: int, *, model: str = "shapes", keep: bool = True) -> NewJob:
    spec = msgspec.structs.replace(SPEC, seed=number, model=model)
    key = hashlib.sha256(f"{model} {number}".encode()).hexdigest()
    return NewJob(key, spec, "f" * 64, keep, "127.0.0.1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(database: Database, clock: Clock) -> JobTable:
    return JobTable(database, clock=clock)


async def bring(table: JobTable, job: Job, state: JobState) -> None:
    """The job on the shortest way from QUEUED into a state."""
    if state in (S.DISPATCHED, S.RUNNING):
        await table.move(job.job_id, S.DISPATCHED)
    if state is not S.DISPATCHED and state is not S.QUEUED:
        assert await table.move(job.job_id, state) is not None


async def test_an_added_job_is_there_with_all_its_fields(table: JobTable, clock: Clock):
    (job,) = await table.add([new(1)])
    assert job == Job(
        job_id=job.job_id,
        key=new(1).key,
        spec=new(1).spec,
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
    first = await table.add([new(1), new(2), new(1)])
    assert first[0] == first[2] != first[1]
    second = await table.add([new(2), new(3)])
    assert second[0] == first[1]
    assert (await table.counts())[S.QUEUED] == 3
    assert await table.in_flight([new(n).key for n in (1, 3, 9)]) == {
        new(1).key: first[0],
        new(3).key: second[1],
    }


async def test_concurrent_adds_of_one_key_give_one_job(table: JobTable):
    answers = await asyncio.gather(*(table.add([new(1), new(n)]) for n in range(2, 22)))
    assert len({answer[0].job_id for answer in answers}) == 1
    assert len({answer[1].job_id for answer in answers}) == 20
    assert (await table.counts())[S.QUEUED] == 21


async def test_what_is_not_kept_is_shared_with_nobody(table: JobTable):
    jobs = await table.add([new(1, keep=False), new(1, keep=False), new(1), new(1, keep=False)])
    assert len({job.job_id for job in jobs}) == 4
    assert await table.in_flight([new(1).key]) == {new(1).key: jobs[2]}


@pytest.mark.parametrize("state", list(S))
async def test_a_key_is_free_again_when_its_job_is_final(table: JobTable, state: JobState):
    (first,) = await table.add([new(1)])
    await bring(table, first, state)
    (second,) = await table.add([new(1)])
    assert (second.job_id == first.job_id) == (state not in FINAL_STATES)


@pytest.mark.parametrize(("before", "after"), list(product(S, S)))
async def test_only_the_moves_of_the_table_of_states_are_made(
    table: JobTable, before: JobState, after: JobState
):
    (job,) = await table.add([new(1)])
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
    (job,) = await table.add([new(1)])
    clock.now += 5
    await table.move(job.job_id, S.DISPATCHED, attempt=1, dispatched_at=clock.now)
    moved = await table.move(job.job_id, S.RUNNING, worker_id="gpu-1")
    assert moved is not None
    assert (moved.worker_id, moved.attempt, moved.changed_at) == ("gpu-1", 1, clock.now)
    back = await table.move(job.job_id, S.QUEUED, worker_id=None)
    assert back is not None
    assert back.worker_id is None
    assert await table.move("unknown", S.FAILED) is None
    with pytest.raises(TypeError, match="'key'"):
        await table.move(job.job_id, S.FAILED, key="another")


async def test_of_two_equal_events_one_is_told(table: JobTable):
    (job,) = await table.add([new(1)])
    moved = await asyncio.gather(*(table.move(job.job_id, S.SUCCEEDED) for _ in range(10)))
    assert len([found for found in moved if found is not None]) == 1


async def test_many_are_moved_at_once(table: JobTable):
    jobs = await table.add([new(n) for n in range(5)])
    await table.move(jobs[1].job_id, S.CANCELLED)
    ids = [job.job_id for job in reversed(jobs)]
    moved = await table.move_many([*ids, "unknown"], S.FAILED, error_code="no_worker")
    assert [job.job_id for job in moved] == [jobs[n].job_id for n in (0, 2, 3, 4)]
    assert await table.move_many([], S.FAILED) == []


async def test_the_oldest_of_a_model_are_dispatched(table: JobTable, clock: Clock):
    jobs = await table.add([new(n, model=("a", "b")[n % 2]) for n in range(6)])
    clock.now += 1
    first = await table.dispatch_next("a", 2)
    assert [job.job_id for job in first] == [jobs[0].job_id, jobs[2].job_id]
    assert {(job.state, job.attempt, job.dispatched_at) for job in first} == {
        (S.DISPATCHED, 1, clock.now)
    }
    await table.move(first[0].job_id, S.QUEUED)
    again = await table.dispatch_next("a", 10)
    assert [(job.job_id, job.attempt) for job in again] == [
        (jobs[0].job_id, 2),
        (jobs[4].job_id, 1),
    ]
    assert await table.dispatch_next("a", 10) == []
    assert await table.queued_models() == ["b"]


async def test_concurrent_dispatches_take_no_job_twice(table: JobTable):
    await table.add([new(n) for n in range(20)])
    taken = await asyncio.gather(*(table.dispatch_next("shapes", 3) for _ in range(10)))
    ids = [job.job_id for batch in taken for job in batch]
    assert len(ids) == len(set(ids)) == 20


async def test_a_new_start_cancels_what_nobody_can_be_given(table: JobTable):
    jobs = await table.add([new(0), new(1, keep=False), new(2, model="b"), new(3, model="gone")])
    await table.dispatch_next("b", 1)
    done = (await table.add([new(4, model="b")]))[0]
    await table.move(done.job_id, S.SUCCEEDED)
    fingerprints = {"shapes": jobs[0].fingerprint, "b": "0" * 64}
    assert await table.cancel_unwanted(fingerprints) == 2
    assert await table.cancel_unwanted(fingerprints) == 0
    states = [job.state for job in [await table.get(job.job_id) for job in [*jobs, done]] if job]
    assert states == [S.QUEUED, S.CANCELLED, S.CANCELLED, S.QUEUED, S.SUCCEEDED]


async def test_jobs_by_state_come_oldest_first(table: JobTable):
    jobs = await table.add([new(n) for n in range(5)])
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
    jobs = await table.add([new(n) for n in range(8)])
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
    jobs = await JobTable(database).add([new(n) for n in range(3)])
    await database.close()
    database = await Database.open(tmp_path / "db")
    table = JobTable(database)
    assert await table.in_state([S.QUEUED]) == jobs
    assert [job.job_id for job in await table.add([new(0)])] == [jobs[0].job_id]
    await database.close()


ADDING = """
import asyncio, pathlib, sys
from sdq.server.database import Database
from sdq.server.jobs import JobTable, NewJob
from sdq.spec import ImageSpec
async def main():
    table = JobTable(await Database.open(pathlib.Path(sys.argv[1])))
    for number in range(0, 10_000, 10):
        specs = [
            ImageSpec("a", "", "shapes", 128, 128, 20, 4.0, "ddim", number + n) for n in range(10)
        ]
        jobs = [NewJob(f"{s.seed:064x}", s, "f" * 64, True, "") for s in specs]
        for job in await table.add(jobs):
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
    await table.add([new(0)])
    pages = await database.fetch_one("PRAGMA page_count")
    assert pages is not None
    await database.fetch_all(f"PRAGMA max_page_count = {pages[0] + 2}")
    with pytest.raises(StackError, match="is full"):
        await table.add([new(n) for n in range(1, 200)])
    assert (await table.counts())[S.QUEUED] == 1
    await database.fetch_all("PRAGMA max_page_count = 100000")
    assert len(await table.add([new(n) for n in range(1, 200)])) == 199


async def test_a_cancelled_add_adds_all_or_none(table: JobTable):
    for pause in range(30):
        before = (await table.counts())[S.QUEUED]
        task = asyncio.create_task(table.add([new(pause * 10 + n) for n in range(5)]))
        for _ in range(pause % 15):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert (await table.counts())[S.QUEUED] - before in (0, 5)


async def test_no_statement_walks_through_all_jobs(database: Database):
    """100,000 queued jobs stay quick: every statement finds its rows through an index."""
    statements = {
        name: value
        for name, value in vars(jobs_module).items()
        if isinstance(value, str) and name.isupper() and value.lstrip()[:6] in _VERBS
    }
    assert len(statements) >= 9
    for name, sql in statements.items():
        sql = sql.replace("{assignments}", "state = 'failed'")
        plan = await database.fetch_all(f"EXPLAIN QUERY PLAN {sql}", ["[]"] * sql.count("?"))
        assert not [row["detail"] for row in plan if row["detail"] == "SCAN jobs"], name


_VERBS = ("SELECT", "UPDATE", "DELETE", "INSERT")


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
    assert all(f"'{state}'" in jobs_module._IN_FLIGHT for state in set(S) - FINAL_STATES)


class JobsAgainstAModel(RuleBasedStateMachine):
    """Any order of additions, moves and purges keeps counts, uniqueness and order right."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = self.runner.run(Database.open(next(self.paths)))
        self.table = JobTable(self.database)
        self.known: dict[str, JobState] = {}

    paths: Iterator[Path]

    @rule(numbers=st.lists(st.integers(0, 5), max_size=4), keep=st.booleans())
    def add(self, numbers: list[int], keep: bool) -> None:
        jobs = self.runner.run(self.table.add([new(n, keep=keep) for n in numbers]))
        for job in jobs:
            assert self.known.setdefault(job.job_id, S.QUEUED) is job.state

    @rule(place=st.integers(0, 20), after=st.sampled_from(list(S)))
    def move(self, place: int, after: JobState) -> None:
        if self.known:
            job_id = list(self.known)[place % len(self.known)]
            moved = self.runner.run(self.table.move(job_id, after))
            assert (moved is not None) == may_follow(self.known[job_id], after)
            if moved is not None:
                self.known[job_id] = after

    @rule(limit=st.integers(1, 3))
    def dispatch(self, limit: int) -> None:
        queued = [job_id for job_id, state in self.known.items() if state is S.QUEUED][:limit]
        taken = self.runner.run(self.table.dispatch_next("shapes", limit))
        assert [job.job_id for job in taken] == queued
        self.known |= dict.fromkeys(queued, S.DISPATCHED)

    @rule()
    def purge(self) -> None:
        self.runner.run(self.table.purge(-1))
        self.known = {i: state for i, state in self.known.items() if state not in FINAL_STATES}

    @invariant()
    def the_table_agrees(self) -> None:
        counts = self.runner.run(self.table.counts())
        assert counts == {state: list(self.known.values()).count(state) for state in S}
        open_jobs = self.runner.run(self.table.in_state(set(S) - FINAL_STATES))
        kept = [job.key for job in open_jobs if job.keep]
        assert len(kept) == len(set(kept))

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()


def test_any_history_keeps_the_table_right(tmp_path_factory: pytest.TempPathFactory):
    from hypothesis.stateful import run_state_machine_as_test

    def fresh() -> Iterator[Path]:
        while True:
            yield tmp_path_factory.mktemp("jobs") / "db"

    JobsAgainstAModel.paths = fresh()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        JobsAgainstAModel, settings=settings(max_examples=20, deadline=None, stateful_step_count=25)
    )
