"""The workers online, as their heartbeats tell."""

import time
from collections.abc import Callable, Iterable
from typing import cast

import msgspec
from redis.asyncio import Redis

from sdq.broker import WORKERS_SET, Heartbeat, HeldModel, heartbeat_key, read_heartbeat
from sdq.errors import ProtocolError
from sdq.protocol.messages import WorkerStatus
from sdq.server.tallies import Tallies

MAX_WORKERS = 1_000
MAX_HANDS = 1_000
"""Of one worker's tasks at once, so many count: the window in Redis stays small."""

SERVING_STATES = frozenset({"ready", "drawing"})
LEAVING_STATES = frozenset({"stopping", "broken"})


class Roster:
    """Workers by id. A heartbeat expires in Redis, so no two clocks are ever compared."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, tallies: Tallies | None = None
    ) -> None:
        self._tallies = tallies
        self._clock = clock
        self._beats: dict[str, Heartbeat] = {}
        self._heard: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._stuck: dict[str, tuple[str, float]] = {}  # at which job, since when

    async def refresh(self, redis: "Redis") -> bool:
        """Reads the heartbeats; whether anything that matters for waiting jobs has changed.

        Raises redis-py's errors when Redis is away; the roster then stays as it was.
        """
        members = cast("list[bytes]", await redis.zrange(WORKERS_SET, 0, MAX_WORKERS - 1))
        keys = [heartbeat_key(member.decode(errors="replace")) for member in members]
        raw_beats = cast("list[bytes | None]", await redis.mget(keys)) if keys else []
        gone = [member for member, raw in zip(members, raw_beats, strict=True) if raw is None]
        if gone:
            await redis.zrem(WORKERS_SET, *gone)
        return self.update(_readable(raw for raw in raw_beats if raw is not None))

    def update(self, beats: Iterable[Heartbeat]) -> bool:
        """Takes the heartbeats of now; whether anybody serves more or fewer models than before."""
        fresh = {beat.worker_id: beat for beat in beats}
        now = self._clock()
        before = {worker: _served(beat) for worker, beat in self._beats.items()}
        after = {worker: _served(beat) for worker, beat in fresh.items()}
        for worker, beat in fresh.items():
            old = self._beats.get(worker)
            if old is None or old.sent_at != beat.sent_at:
                self._heard[worker] = now
                self._counts[worker] = self._counts.get(worker, 0) + 1
        self._heard = {worker: self._heard[worker] for worker in fresh}
        self._counts = {worker: self._counts[worker] for worker in fresh}
        if self._tallies is not None and fresh.keys() != self._beats.keys():
            known = self._beats.keys()
            self._tallies.workers_changed(fresh.keys() - known, known - fresh.keys())
        self._beats = fresh
        self._stuck = {
            worker: (job_id, since)
            for worker, (job_id, since) in self._stuck.items()
            if worker in fresh and job_id in fresh[worker].active
        }
        return before != after

    def distrust(self, worker_id: str, job_id: str) -> None:
        """A worker does not get on with a job: no jobs are meant for it while it has that one."""
        if worker_id in self._beats and worker_id not in self._stuck:
            self._stuck[worker_id] = (job_id, self._clock())

    def stuck_since(self, worker_id: str) -> float | None:
        """Since when it is not trusted, by our clock; ``None``: it is."""
        _, since = self._stuck.get(worker_id, ("", None))
        return since

    def beats(self) -> Iterable[Heartbeat]:
        """The last heartbeat of everybody online, stopping ones included."""
        return self._beats.values()

    def get(self, worker_id: str) -> Heartbeat | None:
        return self._beats.get(worker_id)

    def beats_heard(self, worker_id: str) -> int:
        """How many different heartbeats of a worker were read since it came; 0: not online."""
        return self._counts.get(worker_id, 0)

    def heard_seconds_ago(self, worker_id: str) -> float:
        """Seconds since a worker's last new heartbeat was read."""
        return self._clock() - self._heard[worker_id]

    def holders(self, model_id: str, fingerprint: str) -> list[Heartbeat]:
        """Workers that can draw with exactly these weights, loading ones included."""
        return [
            beat
            for beat in self._all_holders(model_id, fingerprint)
            if beat.state not in LEAVING_STATES
        ]

    def ready(self, model_id: str, fingerprint: str) -> list[Heartbeat]:
        """Workers that take jobs for exactly these weights now."""
        return [
            beat
            for beat in self._all_holders(model_id, fingerprint)
            if beat.state in SERVING_STATES and beat.worker_id not in self._stuck
        ]

    def window(self, model_id: str, fingerprint: str) -> int:
        """Jobs of a model that keep its ready workers busy: what they take, and one more each.

        A worker of several models counts whole for each of them: it takes what its hands are
        free for, and what it leaves lies in the queue, where anybody else may take it.
        """
        return sum(
            min(beat.concurrency, MAX_HANDS) + 1 for beat in self.ready(model_id, fingerprint)
        )

    def why_nobody(self, model_id: str, fingerprint: str) -> str:
        """Why no worker takes jobs of a model now, in words; empty when one does."""
        if self.ready(model_id, fingerprint):
            return ""
        holders = self.holders(model_id, fingerprint)
        if stuck := [beat.worker_id for beat in holders if beat.worker_id in self._stuck]:
            return f"worker {stuck[0]} does not get on with its picture"
        if loading := holders:
            return f"the model is loading on {loading[0].host}"
        if leaving := self._all_holders(model_id, fingerprint):
            return _why_leaving(model_id, leaving)
        if failing := [beat.worker_id for beat in self.beats() if model_id in beat.failing]:
            return f"worker {failing[0]} cannot load {model_id!r}; `sdq workers` says why"
        if any(model.model_id == model_id for beat in self.beats() for model in beat.models):
            return f"the workers online hold another version of {model_id!r}"
        return f"no worker online holds {model_id!r}"

    def _all_holders(self, model_id: str, fingerprint: str) -> list[Heartbeat]:
        return [
            beat
            for beat in self._beats.values()
            if any(m.model_id == model_id and m.fingerprint == fingerprint for m in beat.models)
        ]

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """For people."""
        return tuple(
            WorkerStatus(
                worker_id=beat.worker_id,
                host=beat.host,
                models=tuple(model.model_id for model in beat.models),
                device=beat.device,
                state=beat.state,
                active=len(beat.active),
                seconds_per_step=beat.seconds_per_step,
                seen_seconds_ago=round(self.heard_seconds_ago(beat.worker_id), 1),
                note=beat.note,
                loaded=beat.loaded,
                memory_free_bytes=beat.memory_free_bytes,
            )
            for beat in self._beats.values()
        )


def _served(beat: Heartbeat) -> frozenset[HeldModel]:
    """The models that it takes jobs of."""
    return frozenset(beat.models) if beat.state in SERVING_STATES else frozenset()


def _why_leaving(model_id: str, leaving: Iterable[Heartbeat]) -> str:
    states = {beat.state for beat in leaving}
    if states == {"broken"}:
        return f"all workers that hold {model_id!r} are broken"
    if states == {"stopping"}:
        return f"all workers that hold {model_id!r} are stopping"
    return f"all workers that hold {model_id!r} are stopping or broken"


def _readable(raw_beats: Iterable[bytes]) -> Iterable[Heartbeat]:
    for raw in raw_beats:
        try:
            yield read_heartbeat(raw)
        except (ProtocolError, msgspec.ValidationError):
            continue  # a worker of another version: it cannot be given work
