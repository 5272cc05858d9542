"""What the server counts of itself since it started: in memory, of a bounded size.

Counting is a few additions: it is done on the way of each picture. `sdq.server.metrics` and
`sdq.server.activity` tell of it.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

MAX_LABELS = 100
"""Models or error codes that are told apart; others together are `OTHER`."""

OTHER = "other"
MAX_EVENTS = 50

HIT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper edges of the histogram's buckets; a last one has all that took longer."""


class Event(NamedTuple):
    """Something worth a line. ``at``: by the clock of the tallies."""

    at: float
    what: str  # drawn, failed, online, offline
    worker_id: str = ""
    model: str = ""
    note: str = ""


class Tallies:
    """One for the server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started_at = clock()
        self.hits = 0
        self.misses = 0
        self.drawn: dict[str, int] = {}  # pictures by model
        self.failed: dict[str, int] = {}  # jobs by error code
        self.hit_counts = [0] * (len(HIT_SECONDS) + 1)
        self.hit_seconds_sum = 0.0
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)  # newest last

    def asked(self, *, hits: int, misses: int) -> None:
        """Pictures that were asked for."""
        self.hits += hits
        self.misses += misses

    def answered(self, seconds: float) -> None:
        """A request was answered from the library alone, so quickly."""
        self.hit_counts[bisect_left(HIT_SECONDS, seconds)] += 1
        self.hit_seconds_sum += seconds

    def picture_drawn(self, model: str, worker_id: str, draw_seconds: float) -> None:
        """A picture has come of a job."""
        _count(self.drawn, model)
        self._note("drawn", worker_id, model, f"{draw_seconds:.1f} s")

    def job_failed(self, model: str, code: str, message: str) -> None:
        """A job has come to nothing."""
        _count(self.failed, code)
        self._note("failed", "", model, message[:200])

    def workers_changed(self, came: Iterable[str], went: Iterable[str]) -> None:
        """Workers that are online now, or are no more."""
        for worker_id in sorted(came):
            self._note("online", worker_id)
        for worker_id in sorted(went):
            self._note("offline", worker_id)

    def _note(self, what: str, worker_id: str = "", model: str = "", note: str = "") -> None:
        self.events.append(Event(self.clock(), what, worker_id, model, note))


def _count(counts: dict[str, int], label: str) -> None:
    if label not in counts and len(counts) >= MAX_LABELS:
        label = OTHER
    counts[label] = counts.get(label, 0) + 1
