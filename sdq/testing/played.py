"""Workers and their event stream, played: what a real one would do, one move at a time.

Nothing happens by itself, and what makes no sense at the moment does nothing, so that a test may
choose moves at random.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sdq.broker import Heartbeat, Stepped, WorkerEvent
from sdq.errors import OutOfMemory
from sdq.protocol.model import ModelManifest
from sdq.server.queue.job import Job
from sdq.testing.dispatch import (
    MemoryDispatcher,
    begun,
    broke,
    drawn,
    heartbeat,
    returned,
    stepped,
    stopped,
)

SILENCE_SECONDS = 8.0
"""So long a heartbeat stays in Redis."""


@dataclass
class PlayedWorker:
    """Attempts in hand, in the order of their arrival, and those of them that are being drawn."""

    name: str
    hands: list[Job] = field(default_factory=list)
    drawing: list[Job] = field(default_factory=list)
    is_alive: bool = True
    beat: Heartbeat | None = None  # the last one


class PlayedWorkers:
    """Workers on one `MemoryDispatcher`. ``image``: the PNG of a job.

    ``stream`` holds what they said and the server has not read. While Redis is away nobody can
    move, except by dying.
    """

    def __init__(self, names: tuple[str, ...], image: Callable[[Job], bytes]) -> None:
        self.workers = {name: PlayedWorker(name) for name in names}
        self.dispatcher = MemoryDispatcher()
        self.stream: list[WorkerEvent] = []
        self._image = image

    def beats(self, manifest: ModelManifest, now: float) -> Iterator[Heartbeat]:
        """What Redis shows of them now: the dead ones, too, for a while."""
        for worker in self.workers.values():
            if worker.is_alive:
                active = [job.job_id for job in worker.hands]
                worker.beat = heartbeat(manifest, worker.name, active=active, sent_at=now)
            if worker.beat is not None and now - worker.beat.sent_at < SILENCE_SECONDS:
                yield worker.beat

    def given(self) -> list[Job]:
        """All attempts that lie in the queue or in a hand, and that no flag stops."""
        attempts = list(self.dispatcher.sent)
        for worker in self.workers.values():
            attempts += worker.hands
        return [job for job in attempts if not self.dispatcher.is_stopped(job)]

    # ------------------------------------------------------------ moves

    def take(self, name: str) -> None:
        """The oldest task of the queue; one that was given up is dropped at once."""
        worker = self.workers[name]
        if not worker.is_alive or self.dispatcher.is_away or not self.dispatcher.sent:
            return
        job = self.dispatcher.take()
        if self.dispatcher.is_stopped(job):
            self.stream.append(stopped(job, name))
        else:
            worker.hands.append(job)

    def go_on(self, name: str, place: int) -> Stepped | None:
        """Begins a job, or makes a step of one that was begun, or stops it where it must."""
        job = self._in_hand(name, place)
        if job is None:
            return None
        worker = self.workers[name]
        if self.dispatcher.is_stopped(job):
            self._finish(worker, job, stopped(job, name))
        elif job in worker.drawing:
            return stepped(job, 1, name)
        else:
            worker.drawing.append(job)
            self.stream.append(begun(job, name))
        return None

    def look_at_flags(self) -> None:
        """All stop what was given up, as they do between two steps."""
        for worker in self.workers.values():
            for job in [job for job in worker.hands if self.dispatcher.is_stopped(job)]:
                self._finish(worker, job, stopped(job, worker.name))

    def draw(self, name: str, place: int) -> None:
        """Also one whose cancel came too late to be seen."""
        if job := self._in_hand(name, place):
            self._finish(self.workers[name], job, drawn(job, self._image(job), name))

    def fail(
        self, name: str, place: int, cause: str = "bad luck", *, retryable: bool
    ) -> Job | None:
        """Gives the attempt that failed."""
        if job := self._in_hand(name, place):
            event = broke(job, cause, retryable=retryable, worker_id=name)
            self._finish(self.workers[name], job, event)
        return job

    def run_out_of_memory(self, name: str, place: int) -> Job | None:
        """Gives the attempt that failed."""
        if job := self._in_hand(name, place):
            event = broke(job, "full", retryable=True, worker_id=name, code=OutOfMemory.code)
            self._finish(self.workers[name], job, event)
        return job

    def give_back(self, name: str, place: int) -> None:
        if job := self._in_hand(name, place):
            self._finish(self.workers[name], job, returned(job, worker_id=name))

    def die_or_come_back(self, name: str) -> None:
        """As by ``kill -9``; it comes back under the same name, and knows of nothing."""
        worker = self.workers[name]
        worker.is_alive = not worker.is_alive
        worker.hands.clear()
        worker.drawing.clear()

    def _in_hand(self, name: str, place: int) -> Job | None:
        hands = self.workers[name].hands
        return hands[place % len(hands)] if hands and not self.dispatcher.is_away else None

    def _finish(self, worker: PlayedWorker, job: Job, event: WorkerEvent) -> None:
        worker.hands.remove(job)
        if job in worker.drawing:
            worker.drawing.remove(job)
        self.stream.append(event)
