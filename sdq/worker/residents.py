"""The models in memory: whose turn it is, who may come, and who leaves for it.

Memory is a budget in bytes. A model that somebody waits for comes in when it fits beside the
others, or when idle ones can leave for it, whoever worked last leaving last. Else the models
that work are preferred, and what arrives for them goes on joining, until the picture that waits
has waited for its patience, and they had as long in memory themselves. Then no new picture of
theirs begins, those under way finish, they leave, and the other one comes: before anybody who
has waited for a shorter time. So nobody starves, and loading takes a small share of the time.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from sdq.worker.flight import Pipeline
from sdq.worker.holding import Holding
from sdq.worker.inbox import Line
from sdq.worker.turns import Turns

PATIENCE_SECONDS = 3.0
LOADS_OF_PATIENCE = 5
"""Patience is so many times what loading takes, so that at most about a sixth is lost by it."""


@dataclass(eq=False)
class Resident:
    """A model in memory. Times are of one clock that never goes back."""

    holding: Holding
    pipeline: Pipeline
    turns: Turns
    since_seconds: float
    used_at_seconds: float
    spent_seconds: float = 0.0
    """On its turns; not less than others had before it had something to do."""
    must_leave: bool = False
    """No new picture of it begins."""
    line: Line = field(default_factory=Line)

    @property
    def model_id(self) -> str:
        return self.holding.model_id


@dataclass(frozen=True)
class Wish:
    """Somebody waits for this model since then. ``alone``: it needs all the memory there is."""

    model_id: str
    since_seconds: float
    alone: bool = False


@dataclass(frozen=True)
class Change:
    """These models leave, then that one is loaded. Names only: nothing may refer to a pipeline
    that is to leave memory."""

    leaving: tuple[str, ...]
    coming: str = ""


class Residents:
    """For the engine's thread, but for `loaded`."""

    def __init__(
        self,
        holdings: Sequence[Holding],
        *,
        budget_bytes: int = 0,
        keep_alive_seconds: float = 0.0,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._holdings = {holding.model_id: holding for holding in holdings}
        self._budget_bytes = budget_bytes
        self._keep_alive_seconds = keep_alive_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._here: dict[str, Resident] = {}
        self._load_seconds: dict[str, float] = {}
        self._served_seconds = 0.0  # what the one served last had spent
        self._ready: Collection[Resident] = ()  # those that had something to do at the last turn
        self.loaded: tuple[str, ...] = ()
        """Their ids; may be read by any thread."""
        self.expected = ""
        """The model that comes when those that must leave have finished."""

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[Resident]:
        return iter(tuple(self._here.values()))

    def __getitem__(self, model_id: str) -> Resident:
        return self._here[model_id]

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._here

    def add(
        self, holding: Holding, pipeline: Pipeline, turns: Turns, load_seconds: float
    ) -> Resident:
        now = self._clock()
        resident = Resident(holding, pipeline, turns, now, now)
        self._here[holding.model_id] = resident
        self._load_seconds[holding.model_id] = load_seconds
        self.loaded = tuple(self._here)
        return resident

    def remove(self, model_ids: Sequence[str]) -> list[tuple[Holding, Pipeline]]:
        """Forgets these. What it returns holds the last references from here."""
        self._ready = ()
        gone = [self._here.pop(model_id) for model_id in model_ids]
        self.loaded = tuple(self._here)
        return [(resident.holding, resident.pipeline) for resident in gone]

    # ------------------------------------------------------------ turns

    def next_turn(self) -> Resident | None:
        """Whoever had the least time of those that have something to do: a model whose turns
        are long does not make those of another one rare."""
        ready = [resident for resident in self._here.values() if resident.turns.is_ready]
        if not ready:
            self._ready = ()
            return None
        for resident in ready:
            if resident not in self._ready:  # time in which it had nothing to do is not owed to it
                resident.spent_seconds = max(resident.spent_seconds, self._served_seconds)
        self._ready = ready
        chosen = min(ready, key=lambda resident: resident.spent_seconds)
        self._served_seconds = chosen.spent_seconds
        return chosen

    def spent(self, resident: Resident, seconds: float) -> None:
        """It had a turn, that took so long."""
        resident.spent_seconds += seconds
        resident.used_at_seconds = self._clock()

    # ------------------------------------------------------------ who comes, who leaves

    def change(self, wishes: Sequence[Wish], wanted: Collection[str]) -> Change | None:
        """What is to change in memory now; marks those that must leave before it can.

        ``wanted``: the models in memory that somebody waits for.
        """
        for resident in self._here.values():
            resident.must_leave = False
        self.expected = ""
        for wish in sorted(wishes, key=lambda wish: wish.since_seconds):
            leaving = self._leaving_for(wish, wanted)
            if leaving == () and wish.model_id in self._here:
                continue
            if leaving is not None:
                for resident in leaving:
                    resident.must_leave = True
                if any(len(resident.turns) for resident in leaving):
                    self.expected = wish.model_id
                    return None
                names = tuple(resident.model_id for resident in leaving)
                return Change(names, "" if wish.model_id in self._here else wish.model_id)
            if self._has_waited(wish):
                return None  # it is the next one to come
        return self._expired(wanted)

    def expiry_seconds(self) -> float | None:
        """How long until an idle model has to leave; ``None``: nothing will happen by itself."""
        if not self._keep_alive_seconds:
            return None
        idle = [one.used_at_seconds for one in self._here.values() if not len(one.turns)]
        if not idle:
            return None
        return max(0.0, min(idle) + self._keep_alive_seconds - self._clock())

    def _expired(self, wanted: Collection[str]) -> Change | None:
        if not self._keep_alive_seconds:
            return None
        until = self._clock() - self._keep_alive_seconds
        idle = [resident for resident in self._here.values() if not _works(resident, wanted)]
        expired = tuple(one.model_id for one in idle if one.used_at_seconds <= until)
        return Change(expired) if expired else None

    def _leaving_for(self, wish: Wish, wanted: Collection[str]) -> tuple[Resident, ...] | None:
        """Who has to leave for this one, those with the least to lose first; ``None``: it is not
        their time yet."""
        others = [one for one in self._here.values() if one.model_id != wish.model_id]
        # Of those that work always the same one, until it is gone: the one that came first.
        others.sort(
            key=lambda one: (
                (1, one.since_seconds) if _works(one, wanted) else (0, one.used_at_seconds)
            )
        )
        leaving: list[Resident] = []
        for other in others:
            if self._fits(wish, [one for one in others if one not in leaving]):
                break
            if _works(other, wanted) and not self._had_its_time(other, wish):
                return None
            leaving.append(other)
        for other in tuple(reversed(leaving)):  # a large one made room for what left before it
            stay = [one for one in others if one not in leaving or one is other]
            if self._fits(wish, stay):
                leaving.remove(other)
        return tuple(leaving)

    def _fits(self, wish: Wish, beside: Sequence[Resident]) -> bool:
        if not beside:
            return True
        if wish.alone:
            return False
        if not self._budget_bytes:
            return True
        holdings = [self._holdings[wish.model_id], *(resident.holding for resident in beside)]
        needs = [holding.needs_bytes for holding in holdings]
        # Of one that nobody measured it is not known what fits beside it.
        return all(needs) and sum(needs) <= self._budget_bytes

    def _has_waited(self, wish: Wish) -> bool:
        return self._clock() - wish.since_seconds >= self._patience(wish.model_id)

    def _had_its_time(self, resident: Resident, wish: Wish) -> bool:
        here_seconds = self._clock() - resident.since_seconds
        return self._has_waited(wish) and here_seconds >= self._patience(wish.model_id)

    def _patience(self, model_id: str) -> float:
        latest = max(self._load_seconds.values(), default=0.0)
        load_seconds = self._load_seconds.get(model_id, latest)
        return max(self._patience_seconds, LOADS_OF_PATIENCE * load_seconds)


def _works(resident: Resident, wanted: Collection[str]) -> bool:
    return len(resident.turns) > 0 or resident.model_id in wanted
