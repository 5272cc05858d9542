"""Who waits for which job. Lives in memory: a client that reconnects asks again."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import msgspec

from sdq.protocol.messages import Failure, Origin, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.queue.job import Job
from sdq.server.queue.previews import PreviewWishes
from sdq.spec import ImageSpec

ETA_STEP_SECONDS = 5.0


class Peer(Protocol):
    """The session side: where replies go."""

    @property
    def identity(self) -> str:
        """Who asks: the peer's address, as long as there are no tokens."""

    @property
    def is_behind(self) -> bool:
        """Whether it has left so much unread that what can be left out should be."""

    def send(self, message: msgspec.Struct) -> None:
        """Never waits, never raises: a peer that is gone just does not hear it."""

    async def drained(self) -> None:
        """Waits for a slow reader, for a bounded time; never raises."""


@dataclass
class Request:
    """One `Generate` or `Attach` under way."""

    request_id: int
    peer: Peer
    remaining: int
    is_attached: bool = False  # it waits for jobs that it does not want by itself
    wants_preview: bool = False
    is_cancelled: bool = False  # nothing more may be said
    waiting: dict[int, "Subscription"] = field(default_factory=dict)  # by picture index
    taken_back: tuple[int, int] = (0, 0)  # stopped, kept: of jobs committed when it had ended

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
    keep: bool  # of the job: whether its picture goes into the library
    told: tuple[object, ...] = ()  # the last progress, so that nothing is said twice

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has ended it yet: neither the picture nor anybody."""
        return self.request.waiting.get(self.index) is self

    def progress(
        self,
        state: JobState,
        *,
        step: int = 0,
        ahead: int | None = None,
        note: str = "",
        eta_seconds: float | None = None,
        preview: bytes = b"",
    ) -> None:
        """Tells what is new. A time that only passes is told every few seconds.

        ``preview`` goes to those alone who asked for it, and have read what came before.
        """
        about = None if eta_seconds is None else round(eta_seconds / ETA_STEP_SECONDS)
        news = (state, step, ahead, note, about)
        if not self.request.wants_preview or self.request.peer.is_behind:
            preview = b""
        if news == self.told and not preview:
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
                eta_seconds=eta_seconds,
                preview=preview,
            )
        )


class Subscriptions:
    """All of them, by job and by request."""

    def __init__(self) -> None:
        self._by_job: dict[str, list[Subscription]] = defaultdict(list)
        self.wishes = PreviewWishes()
        """Which of these jobs somebody wants to see while they are drawn."""

    def __len__(self) -> int:
        return sum(len(subscriptions) for subscriptions in self._by_job.values())

    def add(self, request: Request, index: int, job: Job, origin: Origin) -> Subscription:
        steps = job.spec.num_inference_steps
        subscription = Subscription(request, index, job.job_id, origin, steps, job.keep)
        request.waiting[index] = subscription
        self._by_job[job.job_id].append(subscription)
        if request.wants_preview:
            self.wishes.add(job.job_id)
            if job.state is not JobState.QUEUED:
                self.wishes.given_out([job.job_id])
        return subscription

    def job_ids(self, limit: int) -> list[str]:
        """The jobs that somebody waits for, who has waited longest first."""
        return list(islice(self._by_job, limit))

    def of(self, job_id: str) -> tuple[Subscription, ...]:
        return tuple(self._by_job.get(job_id, ()))

    def drop(self, request: Request) -> list[Subscription]:
        """Forgets a request and all that it still waited for, which it gives."""
        dropped = list(request.waiting.values())
        for subscription in dropped:
            self.end(subscription)
        request.remaining = 0
        return dropped

    def end(self, subscription: Subscription) -> None:
        """It waits no more; nothing is said."""
        subscription.request.waiting.pop(subscription.index, None)
        others = self._by_job.get(subscription.job_id, [])
        if subscription in others:
            others.remove(subscription)
            if subscription.request.wants_preview:
                self.wishes.drop(subscription.job_id)
        if not others:
            self._by_job.pop(subscription.job_id, None)

    def deliver(self, job: Job, image: bytes, draw_seconds: float) -> int:
        """Sends a picture to all who wait for it; how many they were."""
        subscriptions = self._by_job.pop(job.job_id, [])
        self.wishes.end(job.job_id)
        for waiting in subscriptions:
            waiting.request.give(
                waiting.index, job.key, job.spec, waiting.origin, image, draw_seconds
            )
        return len(subscriptions)

    def fail(
        self, job_id: str, code: str, message: str, hint: str = "", *, identity: str | None = None
    ) -> None:
        """Tells all who wait that the picture will not come; or only one person."""
        for waiting in self.of(job_id):
            if identity is None or waiting.request.peer.identity == identity:
                self.end(waiting)
                waiting.request.fail(waiting.index, code, message, hint)
