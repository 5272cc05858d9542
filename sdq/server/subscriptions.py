"""Who waits for which job. Lives in memory: a client that reconnects asks again."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from sdq.protocol.messages import Failure, Origin, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.job import Job
from sdq.spec import ImageSpec


class Peer(Protocol):
    """The session side: where replies go."""

    @property
    def identity(self) -> str:
        """Who asks: the peer's address, as long as there are no tokens."""

    def send(self, message: msgspec.Struct) -> None:
        """Never waits, never raises: a peer that is gone just does not hear it."""

    async def drained(self) -> None:
        """Waits for a slow reader, for a bounded time; never raises."""


@dataclass
class Request:
    """One `Generate` under way."""

    request_id: int
    peer: Peer
    remaining: int
    is_cancelled: bool = False  # nothing more may be said
    waiting: dict[int, "Subscription"] = field(default_factory=dict)  # by picture index

    def settle(self, index: int) -> int:
        """One picture less to come; how many are left."""
        self.waiting.pop(index, None)
        self.remaining -= 1
        return self.remaining

    def give(
        self, index: int, key: str, spec: ImageSpec, origin: Origin, image: bytes, seconds: float
    ) -> None:
        """Sends one picture; ``seconds`` is what drawing it took."""
        self.peer.send(
            Picture(
                request_id=self.request_id,
                index=index,
                remaining=self.settle(index),
                key=key,
                spec=spec,
                cache=origin,
                draw_seconds=seconds,
                image=image,
            )
        )

    def fail(self, index: int, code: str, message: str, hint: str = "") -> None:
        """Says that one picture will not come."""
        self.peer.send(
            Failure(
                request_id=self.request_id,
                index=index,
                remaining=self.settle(index),
                code=code,
                message=message,
                hint=hint,
            )
        )

    @property
    def is_done(self) -> bool:
        return self.remaining <= 0


@dataclass(eq=False)
class Subscription:
    """One picture of one request that waits for a job."""

    request: Request
    index: int
    job_id: str
    origin: Origin
    steps: int
    told: tuple[object, ...] = ()  # the last progress, so that nothing is said twice

    def progress(
        self, state: JobState, *, step: int = 0, ahead: int | None = None, note: str = ""
    ) -> None:
        news = (state, step, ahead, note)
        if news == self.told:
            return
        self.told = news
        self.request.peer.send(
            Progress(
                request_id=self.request.request_id,
                index=self.index,
                job_id=self.job_id,
                state=state,
                step=step,
                steps=self.steps,
                ahead=ahead,
                note=note,
            )
        )


class Subscriptions:
    """All of them, by job and by request."""

    def __init__(self) -> None:
        self._by_job: dict[str, list[Subscription]] = defaultdict(list)

    def __len__(self) -> int:
        return sum(len(subscriptions) for subscriptions in self._by_job.values())

    def add(self, request: Request, index: int, job: Job, origin: Origin) -> Subscription:
        subscription = Subscription(
            request, index, job.job_id, origin, job.spec.num_inference_steps
        )
        request.waiting[index] = subscription
        self._by_job[job.job_id].append(subscription)
        return subscription

    def of(self, job_id: str) -> tuple[Subscription, ...]:
        return tuple(self._by_job.get(job_id, ()))

    def move(self, job_id: str, to: str) -> None:
        """Who waits for one job waits for another one from now on."""
        subscriptions = self._by_job.pop(job_id, [])
        for subscription in subscriptions:
            subscription.job_id = to
        self._by_job[to] += subscriptions

    def drop(self, request: Request) -> list[str]:
        """Forgets a request; the jobs that nobody waits for any more."""
        orphans = []
        for subscription in request.waiting.values():
            others = self._by_job[subscription.job_id]
            others.remove(subscription)
            if not others:
                del self._by_job[subscription.job_id]
                orphans.append(subscription.job_id)
        request.waiting.clear()
        return orphans

    def deliver(self, job: Job, image: bytes, draw_seconds: float) -> int:
        """Sends a picture to all who wait for it; how many they were."""
        subscriptions = self._by_job.pop(job.job_id, [])
        for waiting in subscriptions:
            waiting.request.give(
                waiting.index, job.key, job.spec, waiting.origin, image, draw_seconds
            )
        return len(subscriptions)

    def fail(self, job_id: str, code: str, message: str, hint: str = "") -> None:
        """Tells all who wait that the picture will not come."""
        for waiting in self._by_job.pop(job_id, []):
            waiting.request.fail(waiting.index, code, message, hint)
