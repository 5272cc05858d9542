"""How many pictures are worth one turn: 1, 2, 4, 8 … are tried, as long as it pays."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

MOST_PICTURES = 32
"""Tried at most. Beyond, each picture waits long for the others and gains next to nothing."""

LEAST_GAIN = 0.05
"""By so much must a picture's share of a turn fall with each doubling, or it does not pay."""

MOST_ROUNDS = 8
"""All sizes are visited one after the other, again and again until nothing is found to be quicker
than it was: another program that takes the processor disturbs some visits, hardly all of one
size. On a quiet machine two rounds are enough."""

SETTLE_SECONDS = 5.0
"""After so long there is no further round: long turns are disturbed for a part of them only."""

TURNS = 2
"""Of a visit. The quickest of all visits counts: nothing makes a turn quicker than it is, much
makes it slower, such as being the first one of a new size."""

CHEAP_SECONDS = 1.0
"""A turn that is quicker may be tried although the size before did not pay: some gain comes in
jumps, and some was missed in a disturbed visit."""

Clock = Callable[[], float]
"""Seconds since any moment."""

_log = logging.getLogger(__name__)


class Sizes(NamedTuple):
    """What was measured of turns."""

    turn_seconds: dict[int, float]  # by the number of pictures
    is_cut: bool  # there was no time to look further


def largest_useful(turn_seconds: Mapping[int, float]) -> int:
    """The largest size that pays, of those that were measured; 1 when there is none.

    Each doubling since the last size that paid must have paid.
    """
    best = 1
    for pictures in sorted(turn_seconds):
        share = turn_seconds[pictures] / pictures
        doublings = math.log2(pictures / best)
        if share <= (1 - LEAST_GAIN) ** doublings * turn_seconds.get(best, math.inf) / best:
            best = pictures
    return best


def measure(
    turn: Callable[[int], object],
    *,
    seconds_left: Callable[[], float],
    prepare: Callable[[int], object] = lambda pictures: None,
    fits: Callable[[int], bool] = lambda pictures: True,
    most: int = MOST_PICTURES,
    clock: Clock = time.perf_counter,
    work_clock: Clock | None = None,
) -> Sizes:
    """Times turns of all sizes that are worth a try.

    ``turn(pictures)`` does one and returns when the device is done with it; ``prepare`` is called
    before and takes no part in the time. ``work_clock`` tells for how long processors have worked
    for this process, where they are the device: a turn took no longer than that, had it not waited
    for other programs. Ends when larger
    turns do not pay, when ``seconds_left`` says that the next one would take too long, or when
    the memory does: before a turn that does not fit, or after one that failed, with `MemoryError`
    or otherwise. Then the largest that succeeded is given up too, as a margin. Empty when there
    is no time for a single turn. What a turn of one picture raises passes.
    """
    search = _Search(turn, prepare, seconds_left, fits, most, clock, work_clock)
    began = clock()
    for _ in range(MOST_ROUNDS):
        before = dict(search.best)
        search.revisit()
        search.grow()
        if _is_alike(before, search.best) or clock() - began > SETTLE_SECONDS:
            break
    return Sizes(search.best, search.is_cut)


def _is_alike(before: Mapping[int, float], after: Mapping[int, float]) -> bool:
    """Whether a round has found no size that matters to be quicker."""
    return before.keys() == after.keys() and all(
        after[size] >= (1 - LEAST_GAIN) * seconds for size, seconds in before.items()
    )


class _Search:
    def __init__(
        self,
        turn: Callable[[int], object],
        prepare: Callable[[int], object],
        seconds_left: Callable[[], float],
        fits: Callable[[int], bool],
        most: int,
        clock: Clock,
        work_clock: Clock | None,
    ) -> None:
        self.best: dict[int, float] = {}
        self.is_cut = False
        self._slowest: dict[int, float] = {}
        self._turn = turn
        self._prepare = prepare
        self._seconds_left = seconds_left
        self._fits = fits
        self._most = most
        self._clock = clock
        self._work_clock = work_clock or clock

    def revisit(self) -> None:
        for pictures in list(self.best):
            if self.best.get(pictures, math.inf) <= self._seconds_left():
                self._visit(pictures)

    def grow(self) -> None:
        while (pictures := self._next()) and self._fits(pictures):
            self._visit(pictures)

    def _next(self) -> int:
        """The size to try next, 0 for none."""
        last = max(self.best, default=0)
        # The slowest turn of the last size: where something is compiled for each, it comes again.
        expected_seconds = 2 * self._slowest[last] if last else 0.0
        if last:
            is_cheap = 2 * self.best[last] < CHEAP_SECONDS
            useful = largest_useful(self.best)
            if 2 * last > self._most or last > useful * (2 if is_cheap else 1):
                return 0
        self.is_cut = expected_seconds >= self._seconds_left()
        return 0 if self.is_cut else max(1, 2 * last)

    def _visit(self, pictures: int) -> None:
        try:
            for _ in range(TURNS):
                seconds, work_seconds = self._timed(pictures)
                best = self.best.get(pictures, math.inf)
                self.best[pictures] = min(seconds, work_seconds, best)
                self._slowest[pictures] = max(seconds, self._slowest.get(pictures, 0.0))
                if seconds > self._seconds_left():
                    return
        except Exception as error:  # whatever it is, fewer at once may well succeed
            if pictures == 1:
                raise
            _log.debug("not %d at once: %s", pictures, error)
            self._most = max(1, pictures // 4)
            for size in [size for size in self.best if size > self._most]:
                del self.best[size]

    def _timed(self, pictures: int) -> tuple[float, float]:
        self._prepare(pictures)
        began, work_began = self._clock(), self._work_clock()
        self._turn(pictures)
        return self._clock() - began, self._work_clock() - work_began
