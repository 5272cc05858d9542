"""Dispatcher and event reader without Redis: the tests play the workers."""

from collections.abc import Mapping, Sequence

from sdq.broker import (
    Begun,
    Broke,
    Drawn,
    Heartbeat,
    HeldModel,
    Returned,
    Stepped,
    Stopped,
    queue_of,
)
from sdq.protocol.model import ModelManifest
from sdq.server.queue.dispatch import RedisGone
from sdq.server.queue.job import Job


class MemoryDispatcher:
    """Keeps what the scheduler sends. ``is_away`` plays a Redis that does not answer.

    ``cut_after``: Redis goes away when it has taken so many jobs more.
    """

    def __init__(self) -> None:
        self.sent: list[Job] = []
        self.stopped: list[str] = []
        self.flags: dict[str, int] = {}
        """By job: attempts up to this one stop, as the cancel flags in Redis."""
        self.shown: list[str] = []
        """Jobs of which previews were asked for, once for each time."""
        self.drained: list[str] = []
        self.is_away = False
        self.cut_after: int | None = None

    async def send(self, jobs: Sequence[Job]) -> None:
        self._check()
        await self.stop_earlier(jobs)
        for job in jobs:
            if self.cut_after == 0:
                self.is_away, self.cut_after = True, None
            self._check()
            self.sent.append(job)
            if self.cut_after is not None:
                self.cut_after -= 1

    async def stop(self, jobs: Sequence[Job]) -> None:
        self._check()
        self.stopped += [job.job_id for job in jobs]
        self._raise_flags({job.job_id: job.attempt for job in jobs})

    async def stop_earlier(self, jobs: Sequence[Job]) -> None:
        self._check()
        self._raise_flags({job.job_id: job.attempt - 1 for job in jobs})

    async def show(self, job_ids: Sequence[str]) -> None:
        self._check()
        self.shown += job_ids

    async def drain(self, worker_id: str) -> None:
        self._check()
        self.drained.append(worker_id)

    def _raise_flags(self, attempts: Mapping[str, int]) -> None:
        for job_id, last in attempts.items():
            if last > self.flags.get(job_id, 0):
                self.flags[job_id] = last

    async def waiting(self, queue: str) -> set[str]:
        self._check()
        return {
            job.job_id for job in self.sent if queue_of(job.spec.model, job.fingerprint) == queue
        }

    async def close(self) -> None:
        pass

    def take(self) -> Job:
        """The oldest job in the queue, as a worker takes it."""
        return self.sent.pop(0)

    def is_stopped(self, job: Job) -> bool:
        """Whether this attempt's flag stands: a worker drops it."""
        return job.attempt <= self.flags.get(job.job_id, 0)

    def _check(self) -> None:
        if self.is_away:
            raise RedisGone("Redis does not answer: this is a test")


class MemoryReader:
    """An event reader without Redis: the tests apply events themselves.

    ``is_behind`` plays events that lie in the stream unread, ``came_back_empty`` a Redis that
    forgot everything (heard of once).
    """

    def __init__(self) -> None:
        self.is_behind = False
        self.came_back_empty = False

    async def mark(self) -> int:
        return 0

    async def has_passed(self, mark: int) -> bool:
        return not self.is_behind

    async def look_at_epoch(self) -> bool:
        came_back_empty, self.came_back_empty = self.came_back_empty, False
        return came_back_empty


def heartbeat(
    manifest: ModelManifest,
    worker_id: str = "worker-1",
    *,
    active: Sequence[str] = (),
    state: str = "ready",
    concurrency: int = 2,
    sent_at: float = 0.0,
    seconds_per_step: float | None = None,
    note: str = "",
    at_once: int = 1,
    others: Sequence[ModelManifest] = (),
    loaded: Sequence[str] | None = None,
) -> Heartbeat:
    """A worker that holds a model and perhaps ``others``; in memory is the first, if not said."""
    held = [manifest, *others]
    return Heartbeat(
        worker_id=worker_id,
        host="gpu-box",
        models=tuple(HeldModel(found.model_id, found.fingerprint) for found in held),
        device="cpu",
        state=state,
        active=tuple(active),
        concurrency=concurrency,
        seconds_per_step=seconds_per_step,
        versions={},
        sent_at=sent_at,
        note=note,
        at_once=at_once,
        loaded=(manifest.model_id,) if loaded is None else tuple(loaded),
    )


def begun(job: Job, worker_id: str = "worker-1") -> Begun:
    return Begun(job.job_id, job.attempt, worker_id)


def stepped(job: Job, step: int, worker_id: str = "worker-1", *, preview: bytes = b"") -> Stepped:
    steps = job.spec.num_inference_steps
    return Stepped(job.job_id, job.attempt, worker_id, step, steps, preview)


def drawn(job: Job, image: bytes, worker_id: str = "worker-1", draw_seconds: float = 0.5) -> Drawn:
    return Drawn(job.job_id, job.attempt, worker_id, image, draw_seconds)


def broke(
    job: Job,
    message: str,
    *,
    retryable: bool,
    worker_id: str = "worker-1",
    code: str = "generation_failed",
) -> Broke:
    return Broke(job.job_id, job.attempt, worker_id, code, message, retryable)


def stopped(job: Job, worker_id: str = "worker-1") -> Stopped:
    return Stopped(job.job_id, job.attempt, worker_id)


def returned(job: Job, reason: str = "it is draining", worker_id: str = "worker-1") -> Returned:
    return Returned(job.job_id, job.attempt, worker_id, reason)
