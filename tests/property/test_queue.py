"""Any history of the tables of the queue, beside a model of them in a few lines of Python."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sdq.protocol.states import FINAL_STATES, JobState, may_follow
from sdq.protocol.vocabulary import Priority
from sdq.server.database import Database
from sdq.server.queue.job import RANKS
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Turns
from sdq.server.queue.wants import Wants
from sdq.testing.orders import order
from sdq.testing.rig import Clock

S = JobState
people = st.sampled_from(["ann", "bob", "cat"])
places = st.lists(st.integers(0, 15), max_size=4)


@dataclass
class Want:
    rank: int
    holders: int


@dataclass
class Known:
    """What the model knows of a job."""

    seed: int
    keep: bool
    state: JobState = S.QUEUED
    attempt: int = 0
    failures: int = 0
    wants: dict[str, Want] = field(default_factory=dict)


class QueueAgainstAModel(RuleBasedStateMachine):
    """Order of arrival is the order of ``jobs``: a dict keeps it."""

    directories: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.path = next(self.directories) / "db"
        self.clock = Clock()
        self.jobs: dict[str, Known] = {}
        self.served: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        self.database = self.runner.run(Database.open(self.path))
        self.table = JobTable(self.database, clock=self.clock)
        self.turns = Turns(self.database, clock=self.clock)
        self.wants = Wants(self.database, clock=self.clock)

    @initialize(orders=st.lists(st.tuples(people, st.sampled_from(Priority)), max_size=16))
    def a_queue(self, orders: list[tuple[str, Priority]]) -> None:
        for number, (who, priority) in enumerate(orders):
            self.add(who, [number], True, priority)

    def chosen(self, places: list[int]) -> list[str]:
        ids = list(self.jobs)
        return [ids[place % len(ids)] for place in places] if ids else []

    @rule(
        who=people,
        numbers=st.lists(st.integers(0, 12), max_size=6),
        keep=st.sampled_from([True, True, False]),
        priority=st.sampled_from(Priority),
    )
    def add(self, who: str, numbers: list[int], keep: bool, priority: Priority) -> None:
        orders = [order(n, who, keep=keep, priority=priority) for n in numbers]
        added = self.runner.run(self.table.add(orders))
        for number, (job, is_new) in zip(numbers, added, strict=True):
            assert job.spec.seed == number
            if job.job_id not in self.jobs:
                assert is_new
                self.jobs[job.job_id] = Known(number, keep)
            known = self.jobs[job.job_id]
            assert known.keep == keep
            assert known.state not in FINAL_STATES
            want = known.wants.setdefault(who, Want(RANKS[priority], 0))
            want.holders, want.rank = want.holders + 1, min(want.rank, RANKS[priority])

    @rule(who=people, places=places)
    def release(self, who: str, places: list[int]) -> None:
        ids = self.chosen(places)
        self.runner.run(self.wants.release(who, ids))
        for job_id in ids:
            if want := self.jobs[job_id].wants.get(who):
                want.holders -= 1
        for job_id in ids:
            want = self.jobs[job_id].wants.get(who)
            if want is not None and want.holders <= 0:
                del self.jobs[job_id].wants[who]

    @rule(who=people, places=places)
    def withdraw(self, who: str, places: list[int]) -> None:
        ids = set(self.chosen(places))
        gone = set(self.runner.run(self.wants.withdraw(who, sorted(ids))))
        assert gone == {i for i in ids if self.is_open(i) and who in self.jobs[i].wants}
        for job_id in gone:
            del self.jobs[job_id].wants[who]

    @rule(who=people, limit=st.integers(1, 3))
    def withdraw_some(self, who: str, limit: int) -> None:
        mine = [i for i in self.jobs if self.is_open(i) and who in self.jobs[i].wants]
        gone = self.runner.run(self.wants.withdraw_some(who, limit))
        assert len(gone) == min(limit, len(mine))
        assert set(gone) <= set(mine)
        for job_id in gone:
            del self.jobs[job_id].wants[who]

    @rule(who=people, places=places)
    def adopt(self, who: str, places: list[int]) -> None:
        ids = self.chosen(places)
        self.runner.run(self.wants.adopt(who, ids))
        for job_id in ids:
            if self.is_open(job_id):
                self.jobs[job_id].wants.setdefault(who, Want(RANKS[Priority.NORMAL], 1))

    @rule()
    def cancel_unwanted(self) -> None:
        unwanted = [i for i in self.jobs if self.is_open(i) and not self.jobs[i].wants]
        cancelled = self.runner.run(self.wants.cancel_unwanted(list(self.jobs)))
        assert [job.job_id for job in cancelled] == unwanted
        for job_id in unwanted:
            self.jobs[job_id].state = S.CANCELLED

    @rule(place=st.integers(0, 15), after=st.sampled_from(list(S)), failures=st.integers(0, 1))
    def move(self, place: int, after: JobState, failures: int) -> None:
        for job_id in self.chosen([place]):
            known = self.jobs[job_id]
            moved = self.runner.run(self.table.move(job_id, after, failures=failures))
            assert (moved is not None) == may_follow(known.state, after)
            if moved is not None:
                known.state, known.failures = after, known.failures + failures

    @rule(places=places)
    def take_back(self, places: list[int]) -> None:
        ids = self.chosen(places)
        back = self.runner.run(self.table.take_back(ids))
        out = [i for i in self.jobs if i in ids and self.jobs[i].state in (S.DISPATCHED, S.RUNNING)]
        assert [job.job_id for job in back] == out
        for job_id in out:
            self.jobs[job_id].state = S.QUEUED

    @rule(limit=st.integers(1, 6))
    def dispatch(self, limit: int) -> None:
        expected = []
        while len(expected) < limit and (job_id := self.next_in_turn()):
            self.jobs[job_id].state = S.DISPATCHED
            self.jobs[job_id].attempt += 1
            expected.append(job_id)
        assert self.runner.run(self.given(limit)) == expected

    async def given(self, limit: int) -> list[str]:
        first = await self.turns.going_first("shapes", limit)
        jobs = await self.turns.dispatch_next("shapes", limit)
        assert [job.job_id for job in jobs][: len(first)] == first
        return [job.job_id for job in jobs]

    def next_in_turn(self) -> str | None:
        queued = [i for i, known in self.jobs.items() if known.state is S.QUEUED]
        again = [job_id for job_id in queued if self.jobs[job_id].attempt]
        if again:
            return again[0]
        waiting = {who for job_id in queued for who in self.jobs[job_id].wants}
        if not waiting:
            return None
        who = min(waiting, key=lambda who: (self.served.get(who, 0), who))
        self.served[who] = 1 + max(self.served.values(), default=0)
        line = [job_id for job_id in queued if who in self.jobs[job_id].wants]
        return min(line, key=lambda job_id: self.jobs[job_id].wants[who].rank)

    @rule()
    def purge(self) -> None:
        self.clock.now += 100
        self.runner.run(self.table.purge(50))
        for job_id in [i for i in self.jobs if not self.is_open(i)]:
            del self.jobs[job_id]

    @rule()
    def restart(self) -> None:
        self.runner.run(self.database.close())
        self.open()

    def is_open(self, job_id: str) -> bool:
        return self.jobs[job_id].state not in FINAL_STATES

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.runner.run(self.database.fetch_all(sql))]

    @invariant()
    def the_jobs_agree(self) -> None:
        counts = self.runner.run(self.table.counts())
        states = [known.state for known in self.jobs.values()]
        assert counts == {state: states.count(state) for state in S}
        rows = self.rows("SELECT job_id, state, attempt, failures FROM jobs ORDER BY sequence")
        assert rows == [
            (job_id, known.state, known.attempt, known.failures)
            for job_id, known in self.jobs.items()
        ]
        kept = [known.seed for i, known in self.jobs.items() if known.keep and self.is_open(i)]
        assert len(kept) == len(set(kept))

    @invariant()
    def the_wants_agree(self) -> None:
        rows = self.rows(
            "SELECT job_id, wants.identity, rank, holders, stage"
            " FROM wants LEFT JOIN jobs USING (sequence) ORDER BY sequence, wants.identity"
        )
        assert rows == [
            (job_id, who, want.rank, want.holders, stage_of(known.state))
            for job_id, known in self.jobs.items()
            for who, want in sorted(known.wants.items())
        ]

    @invariant()
    def who_waits_is_counted(self) -> None:
        found = dict(self.rows("SELECT identity, waiting FROM turns WHERE waiting <> 0"))
        queued = [known for known in self.jobs.values() if known.state is S.QUEUED]
        assert found == Counter(who for known in queued for who in known.wants)

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()


def stage_of(state: JobState) -> int:
    return 0 if state is S.QUEUED else 2 if state in FINAL_STATES else 1


def test_any_history_of_the_tables_agrees_with_the_model(drive):
    drive(QueueAgainstAModel, 60, 30)
