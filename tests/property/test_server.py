"""The inside of a server through anything: nothing lost, nothing drawn twice at once, nobody
starved. Real SQLite, real files; Redis, the workers and their streams are played here."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sdq.broker import WorkerEvent
from sdq.errors import Cancelled
from sdq.protocol.job_messages import CancelJobs
from sdq.protocol.messages import CachePolicy, Failure, Generate, Picture
from sdq.protocol.states import FINAL_STATES, JobState
from sdq.protocol.vocabulary import Priority
from sdq.server.queue.dispatch import RedisGone
from sdq.server.queue.job import Job, jobs_of
from sdq.server.queue.outcomes import MAX_DEATHS, MAX_FAILURES
from sdq.spec import SpecDraft
from sdq.testing.observed import Ask, StoredPictures
from sdq.testing.played import PlayedWorkers
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

T = TypeVar("T")
Jobs = dict[str, Job]
S = JobState
ROUND_SECONDS = 3.0
MAX_ROUNDS = 60
OPEN = (S.QUEUED, S.DISPATCHED, S.RUNNING)
CACHES = [CachePolicy.PREFER] * 4 + [CachePolicy.REFRESH, CachePolicy.OFF]
MOVES = [*["go on", "draw", "bad luck"] * 2, "give back", "die", "no memory", "hopeless"]
WORKERS = ("worker-1", "worker-2")
people = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
workers = st.sampled_from(WORKERS)
places = st.integers(0, 20)
near = st.integers(0, 4)  # of the jobs under way, where there are so many


@cache
def picture(seed: int) -> bytes:
    return png(colour=(seed % 251, seed % 241, 200))


class ServerThroughAnything(RuleBasedStateMachine):
    directories: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = next(self.directories)
        self.asks: list[Ask] = []
        self.holders: dict[str, Counter[str]] = defaultdict(Counter)
        """By job and person: how many requests for it were not taken back."""
        self.old: list[WorkerEvent] = []  # what was read
        self.workers = PlayedWorkers(WORKERS, lambda job: picture(job.spec.seed))
        self.hopeless: set[str] = set()  # jobs that one failure may end
        self.withdrawn: set[tuple[str, str]] = set()  # who cancelled which job
        self.broken: Counter[str] = Counter()  # by job: attempts that a worker broke
        self.stored = StoredPictures()
        self.overtaken: dict[str, Counter[str]] = {}
        """Who waits: how many jobs each other person was given since the last one of theirs."""
        self.open()
        self.hear_workers()

    # ------------------------------------------------------------ the stage

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def open(self) -> None:
        self.rigging = open_rig(self.directory)
        self.rig: Rig = self.run(self.rigging.__aenter__())  # type: ignore[arg-type]
        self.database = self.rig.table._database
        self.run(self.stored.watch(self.database))
        self.run(self.rig.table.cancel_stale({}))
        vars(self.rig.dispatcher).update(vars(self.workers.dispatcher))  # Redis lives on
        self.workers.dispatcher = self.rig.dispatcher
        self.rig.scheduler._trust_roster_later()  # as `watch` begins

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.run(self.database.fetch_all(sql))]

    def jobs(self) -> dict[str, Job]:
        found = self.run(self.database.fetch_all("SELECT * FROM jobs"))
        return {job.job_id: job for job in jobs_of(found)}

    def hear_workers(self) -> None:
        manifest, now = self.rig.catalog.manifest(None), self.rig.clock.now
        self.rig.roster.update(self.workers.beats(manifest, now))

    # ------------------------------------------------------------ people

    @rule(
        who=people,
        what=st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 4)),
        policy=st.sampled_from(CACHES),
        priority=st.sampled_from(Priority),
    )
    def generate(
        self, who: str, what: tuple[int, int, int], policy: CachePolicy, priority: Priority
    ) -> None:
        subject, first, count = what
        draft = SpecDraft(f"picture {subject}")
        message = Generate(len(self.asks), draft, count, first, policy, priority=priority)
        peer = ListeningPeer(who)
        request = self.run(self.rig.generate(peer, message))
        ask = Ask(request, peer, policy is not CachePolicy.OFF)
        self.asks.append(ask)
        for job_id in ask.job_ids().values():
            self.holders[job_id][who] += 1

    @rule(who=people, subject=st.integers(0, 5), count=st.integers(1, 6))
    def submit(self, who: str, subject: int, count: int) -> None:
        for job_id in self.run(self.rig.submit(SpecDraft(f"picture {subject}"), who, count)):
            self.holders[job_id][who] += 1

    @initialize(orders=st.lists(st.tuples(people, st.integers(1, 6)), max_size=5))
    def a_queue(self, orders: list[tuple[str, int]]) -> None:
        for subject, (who, count) in enumerate(orders):
            self.submit(who, subject, count)

    @precondition(lambda self: self.holders)
    @rule(who=people, chosen=st.lists(near, min_size=1, max_size=3))
    def attach(self, who: str, chosen: list[int]) -> None:
        job_ids = [self.some_job(place) for place in chosen]
        peer = ListeningPeer(who)
        self.asks.append(Ask(self.run(self.rig.attach(peer, *job_ids)), peer))

    @precondition(lambda self: self.asks)
    @rule(place=places)
    def interrupt(self, place: int) -> None:
        """Ctrl-C."""
        ask = self.asks.pop(place % len(self.asks))
        for job_id in ask.pending() if not ask.request.is_attached else []:
            self.holders[job_id][ask.identity] -= 1
        self.run(self.rig.cancelling.cancel(ask.request))

    @precondition(lambda self: self.asks)
    @rule(place=places)
    def vanish(self, place: int) -> None:
        ask = self.asks.pop(place % len(self.asks))
        self.forget_unkept([ask])
        self.run(self.rig.cancelling.leave(ask.request))

    def some_job(self, place: int) -> str:
        """The first ones are under way."""
        jobs = self.jobs()
        ids = sorted(self.holders, key=lambda job_id: jobs[job_id].state not in OPEN)
        return ids[place % len(ids)]

    def forget_unkept(self, asks: list[Ask]) -> None:
        for ask in asks:
            for job_id in ask.pending():
                if not ask.keep:
                    self.holders[job_id].clear()

    @precondition(lambda self: self.holders)
    @rule(who=people, place=near, is_mine=st.sampled_from([True, True, False]))
    def take_back(self, who: str, place: int, is_mine: bool) -> None:
        """`sdq cancel JOB`, also for jobs of others."""
        job_id = self.some_job(place)
        if is_mine and (owners := sorted(+self.holders[job_id])):
            who = owners[place % len(owners)]
        self.holders[job_id].pop(who, None)
        self.withdrawn.add((who, job_id))
        self.run(self.rig.cancelling.cancel_jobs(CancelJobs(1, (job_id,)), who))

    # ------------------------------------------------------------ workers

    @rule(name=workers, count=st.integers(1, 3))
    def take(self, name: str, count: int) -> None:
        """The server sees to it that there is something to take."""
        for _ in range(count):
            if not self.rig.dispatcher.sent:
                self.dispatch()
            self.workers.take(name)

    @rule(name=workers, place=places, move=st.sampled_from(MOVES), is_heard=st.booleans())
    def work(self, name: str, place: int, move: str, is_heard: bool) -> None:
        """A worker does something with a job in hand; the server hears of it now or later."""
        if not self.workers.workers[name].hands:
            self.take(name, 2)
        if move == "go on":
            if step := self.workers.go_on(name, place):
                self.run(self.rig.outcomes.apply(step))
        elif move == "draw":
            self.workers.draw(name, place)
        elif move == "give back":
            self.workers.give_back(name, place)
        elif move == "die":
            self.workers.die_or_come_back(name)
        else:
            self.fail(name, place, move)
        if is_heard and not self.rig.dispatcher.is_away:
            self.read(len(self.workers.stream))

    def fail(self, name: str, place: int, how: str) -> None:
        if how == "no memory":
            job = self.workers.run_out_of_memory(name, place)
        else:
            job = self.workers.fail(name, place, retryable=how == "bad luck")
        if job is not None:
            self.broken[job.job_id] += 1
            if how != "bad luck":
                self.hopeless.add(job.job_id)

    @rule(name=workers)
    def die_or_come_back(self, name: str) -> None:
        self.workers.die_or_come_back(name)

    # ------------------------------------------------------------ the server

    @precondition(lambda self: not self.rig.dispatcher.is_away)
    @rule(count=st.integers(1, 4))
    def read(self, count: int) -> None:
        for event in self.workers.stream[:count]:
            self.run(self.rig.outcomes.apply(event))
            self.old.append(event)
        del self.workers.stream[:count]

    @precondition(lambda self: self.old)
    @rule(place=st.integers(0, 3))
    def read_again(self, place: int) -> None:
        """Killed after the commit, before the event was deleted."""
        jobs = self.jobs()
        telling = [event for event in self.old if jobs[event.job_id].state in OPEN] or self.old
        self.run(self.rig.outcomes.apply(telling[-1 - place % len(telling)]))

    @rule()
    def dispatch(self) -> None:
        model = self.rig.catalog.manifest(None).model_id
        before = {s.identity for s in self.run(self.rig.turns.standings(model, 9))}
        have = len(self.rig.dispatcher.sent)
        try:
            self.run(self.rig.scheduler.dispatch())
        except RedisGone:  # turns were taken that nobody saw: what went before proves nothing
            self.overtaken.clear()
            return
        after = {s.identity for s in self.run(self.rig.turns.standings(model, 9))}
        self.overtaken = {who: self.overtaken.get(who, Counter()) for who in before & after}
        for job in self.rig.dispatcher.sent[have:]:
            if job.attempt == 1:
                self.gave(job)

    def gave(self, job: Job) -> None:
        """Between two jobs of one person, everybody else who waits gets one at least."""
        whose = self.wanted_by(job.job_id)
        for who, others in self.overtaken.items():
            if who in whose:
                others.clear()
            elif len(whose) == 1:
                others.update(whose)
                assert max(others.values()) < 2, f"{whose} overtook {who}"

    def wanted_by(self, job_id: str) -> set[str]:
        rows = self.rows(
            f"SELECT wants.identity FROM wants JOIN jobs USING (sequence) WHERE job_id = '{job_id}'"
        )
        return {str(who) for (who,) in rows}

    @rule(seconds=st.sampled_from([1.0, 2.0, 3.0, 9.0]), times=st.integers(1, 6))
    def time_passes(self, seconds: float, times: int) -> None:
        """So many ticks of `Scheduler.watch`."""
        for _ in range(times):
            self.rig.clock.now += seconds
            if not self.rig.dispatcher.is_away:
                self.workers.look_at_flags()
                self.hear_workers()
                self.rig.ears.is_behind = bool(self.workers.stream)
                self.run(self.rig.scheduler.recover())
            else:
                self.rig.scheduler._trust_roster_later()
        self.run(self.rig.scheduler.tell_waiting())

    @rule()
    def redis_goes(self) -> None:
        self.rig.dispatcher.is_away = True

    @rule(is_empty=st.booleans())
    def redis_comes(self, is_empty: bool) -> None:
        self.rig.dispatcher.is_away = False
        if is_empty:
            self.rig.dispatcher.sent.clear()
            self.rig.dispatcher.flags.clear()
            self.workers.stream.clear()
            self.run(self.rig.scheduler.take_back())

    @rule()
    def restart(self) -> None:
        old = self.rig
        self.run(self.stored.count(self.database))
        self.forget_unkept(self.asks)
        self.asks.clear()
        self.run(self.rigging.__aexit__(None, None, None))
        self.open()
        self.rig.clock.now = old.clock.now
        self.hear_workers()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def all_holds(self) -> None:
        jobs = self.jobs()
        self.nothing_is_lost(jobs)
        self.only_what_a_worker_said_counts_as_its_failure(jobs)
        self.each_picture_is_stored_once(jobs)
        self.no_key_is_in_two_hands(jobs)
        self.who_waits_is_counted()
        self.people_get_the_right_pictures()

    def nothing_is_lost(self, jobs: Jobs) -> None:
        for job_id, holders in self.holders.items():
            job = jobs[job_id]
            if job.state is S.FAILED:
                given_up = job.failures >= MAX_FAILURES or job.deaths >= MAX_DEATHS
                assert given_up or job_id in self.hopeless, job
                assert job.error_message
            if job.state is S.CANCELLED:
                assert max(holders.values(), default=0) <= 0, (job, holders)
        kept = {job.key for job in jobs.values() if job.state is S.SUCCEEDED and job.keep}
        assert self.run(self.rig.library.has(sorted(kept))) == kept

    def only_what_a_worker_said_counts_as_its_failure(self, jobs: Jobs) -> None:
        for job in jobs.values():
            assert job.failures <= self.broken[job.job_id], job

    def each_picture_is_stored_once(self, jobs: Jobs) -> None:
        stored = self.run(self.stored.count(self.database))
        drawn_jobs = [job for job in jobs.values() if job.draw_seconds is not None]
        done = Counter(job.key for job in drawn_jobs if job.state is S.SUCCEEDED and job.keep)
        assert stored == done

    def no_key_is_in_two_hands(self, jobs: Jobs) -> None:
        kept = [job for job in jobs.values() if job.keep and job.state in OPEN]
        assert len({job.key for job in kept}) == len(kept)
        current = Counter(job.job_id for job in self.workers.given())
        for job in kept:
            assert current[job.job_id] <= 1, job

    def who_waits_is_counted(self) -> None:
        counted = dict(self.rows("SELECT identity, waiting FROM turns WHERE waiting <> 0"))
        assert counted == dict(
            self.rows(
                "SELECT wants.identity, count(*) FROM wants JOIN jobs USING (sequence)"
                " WHERE state = 'queued' GROUP BY wants.identity"
            )
        )

    def people_get_the_right_pictures(self) -> None:
        for ask in self.asks:
            pictures = ask.peer.all(Picture)
            assert all(told.image == picture(told.spec.seed) for told in pictures)
            failures = ask.peer.all(Failure)
            ended = [told.index for told in [*pictures, *failures]]
            assert len(ended) == len(set(ended))
            promised = ask.job_ids()
            for told in failures:
                if told.code == Cancelled.code and told.index in promised:
                    assert (ask.identity, promised[told.index]) in self.withdrawn

    # ------------------------------------------------------------ the end

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            self.run(self.rigging.__aexit__(None, None, None))
            self.runner.close()

    def everything_ends(self) -> None:
        """With workers that draw all they get, every job ends in a bounded time."""
        self.redis_comes(is_empty=False)
        for name, worker in self.workers.workers.items():
            if not worker.is_alive:
                self.die_or_come_back(name)
        for _ in range(MAX_ROUNDS):
            self.read(len(self.workers.stream))
            self.dispatch()
            while self.rig.dispatcher.sent:
                self.take(WORKERS[0], 1)
            for name, worker in self.workers.workers.items():
                while worker.hands:
                    self.work(name, 0, "go on", is_heard=False)
                    self.workers.draw(name, 0)
            self.read(len(self.workers.stream))
            self.time_passes(ROUND_SECONDS, 1)
            if not any(job.state in OPEN for job in self.jobs().values()):
                break
        left = [job for job in self.jobs().values() if job.state not in FINAL_STATES]
        assert left == []
        self.all_holds()
        assert [ask.pending() for ask in self.asks if ask.pending()] == []


def test_a_server_goes_through_anything(drive):
    drive(ServerThroughAnything, 50, 40)
