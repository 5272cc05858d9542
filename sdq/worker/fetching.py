"""From which queues a worker of several models takes its next job.

Hands are for what can be drawn now. A model in memory, or on its way there, is fetched for
whenever a hand is free. Of any other one a single job knocks: it waits in a hand until the engine
lets its model come (`sdq.worker.residents`), and the rest stays in Redis, where another worker may
take it. Before one knocks it lies in its queue for a moment, in case another worker takes it, and
while another one has the model in memory nothing knocks at all where there is other work.

=========================================  ==================================================
a model                                    its queue
=========================================  ==================================================
in memory and not about to leave, or       open
coming
not in memory, others' jobs in hand        open for one job once its jobs have been lying there
                                           and no other worker has it in memory
not in memory, nothing else in hand        open; while another worker has it in memory, only
                                           once its jobs have been lying there
that cannot be loaded at present           closed
=========================================  ==================================================

kombu asks Redis for a job of several queues at once, and Redis takes the first one that has any:
their order is the order of preference. Among models in memory they take turns.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import cast

import msgspec
import redis

from sdq.broker import WORKERS_SET, Heartbeat, HeldModel, heartbeat_key, queue_of, read_heartbeat
from sdq.errors import ProtocolError

LOOK_SECONDS = 1.0
"""Between two looks at the queues; a job that lies there at two of them is left to us."""

MAX_NEIGHBOURS = 200
"""Other workers that are looked at."""

_Models = Callable[[], Collection[str]]


class Fetching:
    """Which queues are open. ``serving``: the models in memory that stay, and those that are
    coming; ``failing``: those that cannot be loaded at present; ``in_hand``: jobs by model.

    `order` is for Celery's loop, `look` for the heartbeat's thread.
    """

    def __init__(
        self,
        worker_id: str,
        held: Collection[HeldModel],
        *,
        serving: _Models,
        failing: _Models,
        in_hand: Callable[[], Mapping[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker_id = worker_id
        self._held = {queue_of(model.model_id, model.fingerprint): model for model in held}
        self._serving = serving
        self._failing = failing
        self._in_hand = in_hand
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._lying_since: dict[str, float] = {}  # by queue: jobs that nobody takes
        self._left_to_us: frozenset[str] = frozenset()  # queues
        self._elsewhere: frozenset[str] = frozenset()  # queues: in the memory of another worker

    @property
    def queues(self) -> list[str]:
        """All of them, open or not."""
        return list(self._held)

    @property
    def elsewhere(self) -> frozenset[str]:
        """The models that another worker had in memory at the last look."""
        return frozenset(self._held[queue].model_id for queue in self._elsewhere & {*self._held})

    def order(self, queues: Collection[str]) -> list[str]:
        """The open ones of these, the one to be asked first before the others."""
        serving, failing, in_hand = self._serving(), self._failing(), self._in_hand()
        hands = sum(in_hand.values())
        first, usual, last = [], [], []
        for queue in queues:
            model_id = self._held[queue].model_id
            mine = in_hand.get(model_id, 0)
            if model_id in failing:
                continue
            if model_id in serving:
                usual.append(queue)
            elif hands > mine:
                if not mine and queue in self._left_to_us and queue not in self._elsewhere:
                    first.append(queue)
            elif mine or queue in self._left_to_us:
                usual.append(queue)
            elif queue not in self._elsewhere:
                last.append(queue)
        return first + usual + last

    def taken(self, queue: str) -> None:
        """A job of this queue was fetched: it may be a moment until it is counted as in hand."""
        with self._lock:
            self._left_to_us -= {queue}
            self._lying_since.pop(queue, None)

    def look(self, client: "redis.Redis") -> bool:
        """Looks at queues and neighbours, at most once in `LOOK_SECONDS`; whether another queue
        is open now. Raises redis-py's errors; everything stays as it was then."""
        now = self._clock()
        away = [queue for queue, held in self._held.items() if held.model_id not in self._serving()]
        if not away or (self._looked_at is not None and now - self._looked_at < LOOK_SECONDS):
            return False
        before = (self._left_to_us, self._elsewhere)
        with client.pipeline(transaction=False) as pipe:
            for queue in away:
                pipe.llen(queue)
            pipe.zrange(WORKERS_SET, 0, MAX_NEIGHBOURS)
            *lengths, members = pipe.execute()
        others = [name.decode(errors="replace") for name in members]
        others = [name for name in others if name != self._worker_id]
        beats: list[bytes | None] = []
        if others:
            beats = cast("list[bytes | None]", client.mget(map(heartbeat_key, others)))
        lying = [queue for queue, length in zip(away, lengths, strict=True) if length]
        with self._lock:
            self._looked_at = now
            self._elsewhere = frozenset[str]().union(*map(_in_memory, beats))
            self._lying_since = {queue: self._lying_since.get(queue, now) for queue in lying}
            self._left_to_us = frozenset(
                queue for queue, since in self._lying_since.items() if now - since >= LOOK_SECONDS
            )
        return before != (self._left_to_us, self._elsewhere)


def _in_memory(data: bytes | None) -> frozenset[str]:
    """The queues of the models that a worker has in memory and takes jobs of."""
    if data is None:
        return frozenset()
    try:
        beat: Heartbeat = read_heartbeat(data)
    except (ProtocolError, msgspec.ValidationError):
        return frozenset()  # of another version
    if beat.state not in ("ready", "drawing"):
        return frozenset()
    return frozenset(
        queue_of(model.model_id, model.fingerprint)
        for model in beat.models
        if model.model_id in beat.loaded
    )


class Cycle:
    """What kombu's Redis transport asks for its queues, in place of its own ``round_robin``."""

    def __init__(self, fetching: Fetching) -> None:
        self._fetching = fetching
        self._queues: list[str] = []  # the one fetched from last at the end

    def update(self, queues: Collection[str]) -> None:
        """These are consumed from now on."""
        self._queues = list(queues)

    def consume(self, count: int) -> list[str]:
        """The queues of the next ``BRPOP``; none of them: nothing is asked for."""
        return self._fetching.order(self._queues[:count])

    def rotate(self, last_used: str) -> str:
        """A job of this queue was fetched."""
        if last_used in self._queues:
            self._queues.remove(last_used)
            self._queues.append(last_used)
            self._fetching.taken(last_used)
        return last_used
