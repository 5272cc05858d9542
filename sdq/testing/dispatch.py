"""A dispatcher without Redis: the tests play the workers."""

from collections.abc import Sequence

from sdq.broker import Begun, Broke, Drawn, Heartbeat, HeldModel, queue_of
from sdq.protocol.model import ModelManifest
from sdq.server.dispatch import RedisGone
from sdq.server.job import Job


class MemoryDispatcher:
    """Keeps what the scheduler sends. ``is_away`` plays a Redis that does not answer."""

    def __init__(self) -> None:
        self.sent: list[Job] = []
        self.stopped: list[str] = []
        self.is_away = False

    async def send(self, jobs: Sequence[Job]) -> None:
        self._check()
        self.sent += jobs

    async def stop(self, job_ids: Sequence[str]) -> None:
        self._check()
        self.stopped += job_ids

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

    def _check(self) -> None:
        if self.is_away:
            raise RedisGone("Redis does not answer: this is a test")


def heartbeat(
    manifest: ModelManifest,
    worker_id: str = "worker-1",
    *,
    active: Sequence[str] = (),
    state: str = "ready",
    concurrency: int = 2,
    sent_at: float = 0.0,
) -> Heartbeat:
    """A worker that holds one model."""
    return Heartbeat(
        worker_id=worker_id,
        host="gpu-box",
        models=(HeldModel(manifest.model_id, manifest.fingerprint),),
        device="cpu",
        state=state,
        active=tuple(active),
        concurrency=concurrency,
        seconds_per_step=None,
        versions={},
        sent_at=sent_at,
    )


def begun(job: Job, worker_id: str = "worker-1") -> Begun:
    return Begun(job.job_id, job.attempt, worker_id)


def drawn(job: Job, image: bytes, worker_id: str = "worker-1") -> Drawn:
    return Drawn(job.job_id, job.attempt, worker_id, image, 0.5)


def broke(job: Job, message: str, *, retryable: bool, worker_id: str = "worker-1") -> Broke:
    return Broke(job.job_id, job.attempt, worker_id, "generation_failed", message, retryable)
