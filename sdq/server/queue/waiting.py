"""Why a job waits: how many go before it, how long that takes, the reason in words.

What is read is bounded, however long the queue is: at most `MAX_PLACES` places in the lines of
those who wait, and nothing that is counted by going through the table.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from sdq.broker import Heartbeat
from sdq.protocol.states import JobState
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.roster import Roster
from sdq.server.queue.speeds import News, Speeds
from sdq.server.queue.turns import Standing, Turns
from sdq.spec import ImageSpec

MAX_DEPTH = 500
"""So far into one person's line we look; beyond, nobody is served by an exact number."""

MAX_PLACES = 5_000
"""In all lines together. With very many people the look into each is shorter."""

MAX_PEOPLE = 1_000
MAX_GIVEN = 2_000
_SHORTEST_SECONDS = 0.001
_NOT_IN_MEMORY = "the model is not in memory on any worker; it is loaded when its turn comes"
_Ask = Callable[[str, ImageSpec], float | None]


class Why(NamedTuple):
    """``ahead`` and ``eta_seconds`` are ``None`` when nobody can say."""

    ahead: int | None
    eta_seconds: float | None
    note: str


class _Place(NamedTuple):
    """How many jobs go before one; ``is_deep``: more than that many."""

    before: int
    is_deep: bool = False


@dataclass(frozen=True, slots=True)
class _Model:
    """What the jobs of one model have in common at this moment."""

    model_id: str
    running: int
    given: int  # dispatched, not begun
    nobody: str  # why nobody takes its jobs, in words
    ready: Sequence[Heartbeat]
    loaded: Sequence[Heartbeat]  # of the ready ones, those that have it in memory

    @property
    def drawers(self) -> Sequence[Heartbeat]:
        """Who will draw its jobs, as far as we know now."""
        return self.loaded or self.ready


class Waiting:
    """Looks at table, turns, heartbeats and measured speeds; keeps nothing itself."""

    def __init__(
        self, table: JobTable, turns: Turns, roster: Roster, speeds: Speeds, news: News
    ) -> None:
        self._table = table
        self._turns = turns
        self._roster = roster
        self._speeds = speeds
        self._news = news

    async def explain(self, jobs: Sequence[Job]) -> dict[str, Why]:
        """By job id, for those of the jobs that have not ended and of which anything is known:
        one that is just leaving the queue has no place, and what was said of it before stays.

        ``ahead`` counts the jobs that must come to their end before a worker begins this one, as
        far as we know now: all jobs of its model that are drawn or given out, those that had their
        turn already and go first, and of each person that waits what fair turns put before it;
        less those that are drawn beside them, by further workers and by engines that draw several
        at once. Later requests may still take their turn before it. The place is that
        in the line of whoever asked for the job first: an upper bound where others asked too.

        ``eta_seconds``: the pictures ahead as those drawn of late, over all ready workers that
        have the model in memory, and then its own; for one that is being drawn, its remaining
        steps. ``None`` while no worker has the model in memory: when others make room for it
        depends on who asks for those.

        Raises `StackError` when the database does not answer. Safe to cancel.
        """
        groups: dict[tuple[str, str], list[Job]] = defaultdict(list)
        for job in jobs:
            groups[job.spec.model, job.fingerprint].append(job)
        whys: dict[str, Why] = {}
        for (model_id, fingerprint), group in groups.items():
            whys |= await self._explain(model_id, fingerprint, group)
        return whys

    def step_of(self, job_id: str) -> int:
        """The last step that was heard of a running job; 0 for all others."""
        return self._news.steps.get(job_id, 0)

    async def _explain(
        self, model_id: str, fingerprint: str, jobs: Sequence[Job]
    ) -> dict[str, Why]:
        whys = {
            job.job_id: Why(
                None,
                self._speeds.rest_seconds(job.worker_id or "", job.spec, self.step_of(job.job_id)),
                "",
            )
            for job in jobs
            if job.state is JobState.RUNNING
        }
        given = [job for job in jobs if job.state is JobState.DISPATCHED]
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        if not given and not queued:
            return whys
        counts = await self._table.counts_of(model_id)
        ready = self._roster.ready(model_id, fingerprint)
        model = _Model(
            model_id,
            counts[JobState.RUNNING],
            counts[JobState.DISPATCHED],
            self._roster.why_nobody(model_id, fingerprint),
            ready,
            [beat for beat in ready if model_id in beat.loaded],
        )
        places = await self._places_of_given(model) if given else {}
        places |= await self._places_of_queued(model, queued) if queued else {}
        for job in [*given, *queued]:
            place = places.get(job.job_id)
            if place is not None:
                whys[job.job_id] = self._why(model, job, place)
            elif model.nobody:
                whys[job.job_id] = Why(None, None, model.nobody)
        return whys

    def _why(self, model: _Model, job: Job, place: _Place) -> Why:
        hands = sum(beat.at_once for beat in model.drawers)
        ahead = max(0, place.before - max(0, hands - 1))
        queue = f"{ahead} ahead" if ahead else ""
        if place.is_deep:
            queue = f"more than {ahead} ahead"
        memory = "" if model.loaded else _NOT_IN_MEMORY
        note = model.nobody or "; ".join(filter(None, (queue, memory)))
        if place.is_deep:
            return Why(None, None, note)
        return Why(ahead, self._eta_seconds(model, job, ahead), note)

    # ------------------------------------------------------------ how many

    async def _places_of_given(self, model: _Model) -> dict[str, _Place]:
        """Redis gives them out in the order they were sent in."""
        given = await self._table.in_state([JobState.DISPATCHED], MAX_GIVEN)
        mine = [job for job in given if job.spec.model == model.model_id]
        mine.sort(key=lambda job: job.dispatched_at or 0.0)
        return {job.job_id: _Place(model.running + index) for index, job in enumerate(mine)}

    async def _places_of_queued(self, model: _Model, jobs: Sequence[Job]) -> dict[str, _Place]:
        out = model.running + model.given
        first = await self._turns.going_first(model.model_id, MAX_DEPTH)
        places = {job_id: _Place(out + index) for index, job_id in enumerate(first)}
        rounds = _Rounds(await self._standings(model, first))
        asked: dict[str, set[str]] = defaultdict(set)
        for job in jobs:
            if job.job_id not in places:
                asked[job.identity].add(job.job_id)
        depth = min(MAX_DEPTH, MAX_PLACES // max(1, len(asked)))
        for identity, mine in asked.items():
            line = await self._turns.line(model.model_id, identity, depth)
            behind = [job_id for job_id in line if job_id not in places]
            for k, job_id in enumerate(behind, 1):
                if job_id in mine:
                    before = rounds.before(identity, k)
                    places[job_id] = _Place(out + len(first) + before, rounds.is_deep(identity))
            if len(line) >= depth:
                before = out + len(first) + rounds.before(identity, len(behind))
                places |= dict.fromkeys(mine - places.keys(), _Place(before, is_deep=True))
        return places

    async def _standings(self, model: _Model, first: Sequence[str]) -> list[Standing]:
        """Who waits for a turn; jobs that go first take none."""
        standings = await self._turns.standings(model.model_id, MAX_PEOPLE)
        if not first:
            return standings
        jobs = await self._table.get_many(first)
        without = Counter(job.identity for job in jobs.values())
        return [
            one._replace(waiting=max(0, one.waiting - without[one.identity])) for one in standings
        ]

    # ------------------------------------------------------------ how long

    def _eta_seconds(self, model: _Model, job: Job, ahead: int) -> float | None:
        usual = self._known(model, job, self._speeds.usual_seconds)
        own = self._known(model, job, self._speeds.draw_seconds)
        if not usual or not own:
            return None
        # Workers that nobody has measured count like the others.
        rate = len(model.loaded) / len(usual) * sum(1 / seconds for seconds in usual.values())
        return round(ahead / rate + sum(own.values()) / len(own), 1)

    def _known(self, model: _Model, job: Job, ask: _Ask) -> Mapping[str, float]:
        """By worker, of those that have the model in memory and whose speed is known."""
        asked = {beat.worker_id: ask(beat.worker_id, job.spec) for beat in model.loaded}
        return {
            worker: max(_SHORTEST_SECONDS, seconds)
            for worker, seconds in asked.items()
            if seconds is not None
        }


class _Rounds:
    """Fair turns, counted: what goes before the k-th job of one person's line.

    Whoever was served least recently goes next: in each round everybody who still waits has one
    turn, in the order of the standings. So before the k-th job there are k - 1 of the same line,
    k of each person who stands before, and k - 1 of each who stands behind, as far as they have
    so many waiting.
    """

    def __init__(self, standings: Sequence[Standing]) -> None:
        self._places = {one.identity: place for place, one in enumerate(standings)}
        self._waiting = [one.waiting for one in standings]
        self._sorted = sorted(self._waiting)
        self._sums = [0, *accumulate(self._sorted)]
        self._at_least: dict[int, list[int]] = {}  # places of those who have so many waiting

    def is_deep(self, identity: str) -> bool:
        """Whether so many people stand before this one that we do not look at all of them."""
        return identity not in self._places and len(self._waiting) >= MAX_PEOPLE

    def before(self, identity: str, k: int) -> int:
        """How many jobs have their turn before the k-th of this person's, from 1."""
        fewer = bisect_left(self._sorted, k)
        of_all = self._sums[fewer] + k * (len(self._sorted) - fewer)  # k of each, or all they have
        place = self._places.get(identity)
        if place is None:
            return k - 1 + of_all
        behind = self._has_at_least(k)
        of_others = of_all - min(k, self._waiting[place])
        return k - 1 + of_others - (len(behind) - bisect_right(behind, place))

    def _has_at_least(self, k: int) -> list[int]:
        if k not in self._at_least:
            self._at_least[k] = [i for i, count in enumerate(self._waiting) if count >= k]
        return self._at_least[k]
