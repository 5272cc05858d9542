"""How fast workers draw, and what was last heard of each job under way.

Both live in memory: after a restart of the server they start empty and are learnt again, from
the first pictures and the next steps.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from sdq.server.queue.job import Job
from sdq.server.queue.roster import Roster
from sdq.spec import ImageSpec

NEWEST_SHARE = 0.3
"""Of the newest picture in a mean: three or four pictures show a change, one odd one does not."""

MAX_MEASURED = 2_000
"""Pairs of worker and model whose speed is known; who was idle for longest is forgotten."""

MAX_TALKERS = 2_000
_PIXELS = 1_000_000


@dataclass
class _Mean:
    step_seconds: float  # for one step of one megapixel, in whatever company
    share_seconds: float  # of the worker's time, for a picture
    together: float  # pictures that were drawn beside each other, this one included

    def learn(self, newest: "_Mean") -> None:
        self.step_seconds += NEWEST_SHARE * (newest.step_seconds - self.step_seconds)
        self.share_seconds += NEWEST_SHARE * (newest.share_seconds - self.share_seconds)
        self.together += NEWEST_SHARE * (newest.together - self.together)


class Speeds:
    """Measured times by worker and model.

    A step is taken to cost time in proportion to its pixels: not quite true, and the mean soon
    is that of the sizes that are asked for. Before a worker's first picture its own mean from
    its heartbeat counts, which knows no sizes.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._means: OrderedDict[tuple[str, str], _Mean] = OrderedDict()

    def learn(
        self, worker_id: str, spec: ImageSpec, draw_seconds: float, *, model_share: float = 1.0
    ) -> None:
        """A picture was drawn in so many seconds, beside what else the worker has in hand.

        ``model_share``: the part of that which is drawn with the same model.
        """
        step_seconds = draw_seconds / _work(spec)
        beat = self._roster.get(worker_id)
        together = 1.0 if beat is None else min(beat.at_once, len(beat.active) * model_share)
        together = max(1.0, together)
        newest = _Mean(step_seconds, draw_seconds / together, together)
        name = (worker_id, spec.model)
        mean = self._means.get(name)
        if mean is None:
            self._means[name] = newest
        else:
            mean.learn(newest)
        self._means.move_to_end(name)
        while len(self._means) > MAX_MEASURED:
            self._means.popitem(last=False)

    def step_seconds(self, worker_id: str, spec: ImageSpec) -> float | None:
        """One step of a picture of this size on this worker; ``None``: nobody knows yet."""
        mean = self._means.get((worker_id, spec.model))
        if mean is not None:
            return mean.step_seconds * _megapixels(spec)
        beat = self._roster.get(worker_id)
        return None if beat is None else beat.seconds_per_step

    def draw_seconds(self, worker_id: str, spec: ImageSpec) -> float | None:
        """The whole picture on this worker; ``None``: nobody knows yet."""
        step_seconds = self.step_seconds(worker_id, spec)
        return None if step_seconds is None else step_seconds * spec.num_inference_steps

    def share_seconds(self, worker_id: str, spec: ImageSpec) -> float | None:
        """What the picture would take of this worker's time, in the company of late: those that are
        drawn beside it share its steps. ``None``: nobody knows yet."""
        draw_seconds = self.draw_seconds(worker_id, spec)
        mean = self._means.get((worker_id, spec.model))
        return (
            draw_seconds if draw_seconds is None or mean is None else draw_seconds / mean.together
        )

    def rest_seconds(self, worker_id: str, spec: ImageSpec, step: int) -> float | None:
        """The steps after this one, rounded for people; ``None``: nobody knows yet."""
        step_seconds = self.step_seconds(worker_id, spec)
        if step_seconds is None:
            return None
        return round(max(0, spec.num_inference_steps - step) * step_seconds, 1)

    def usual_seconds(self, worker_id: str, spec: ImageSpec) -> float | None:
        """What a picture of late took of this worker's time, with this model, whatever its size.

        A worker that draws several at once has a part of its time for each. Before the first
        one: as long as a picture like ``spec``.
        """
        mean = self._means.get((worker_id, spec.model))
        return self.draw_seconds(worker_id, spec) if mean is None else mean.share_seconds


class _Word(NamedTuple):
    attempt: int
    spec: ImageSpec
    at: float


class News:
    """The last word on each running job, and from each worker. Seconds by our own clock.

    Bounded: `keep_only` forgets the jobs that are not under way any more, once a second.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._words: dict[str, _Word] = {}
        self._workers: OrderedDict[str, float] = OrderedDict()
        self.steps: dict[str, int] = {}
        """By job: the last step that was heard of. For reading only."""

    def begun(self, job: Job) -> None:
        """A worker began to draw it, or we hear of it for the first time."""
        self._words[job.job_id] = _Word(job.attempt, job.spec, self._clock())
        self.steps[job.job_id] = 0

    def stepped(self, job_id: str, attempt: int, step: int) -> ImageSpec | None:
        """The picture, when that is a step further of the attempt that we know of."""
        word = self._words.get(job_id)
        if word is None or word.attempt != attempt or step <= self.steps[job_id]:
            return None
        self._words[job_id] = _Word(attempt, word.spec, self._clock())
        self.steps[job_id] = step
        return word.spec

    def spec_at(self, job_id: str, attempt: int, step: int) -> ImageSpec | None:
        """The picture, when this is the last step that we heard of, of the attempt we know of."""
        word = self._words.get(job_id)
        if word is None or word.attempt != attempt or step != self.steps[job_id]:
            return None
        return word.spec

    def heard(self, worker_id: str) -> None:
        """A worker said something about any job."""
        self._workers[worker_id] = self._clock()
        self._workers.move_to_end(worker_id)
        while len(self._workers) > MAX_TALKERS:
            self._workers.popitem(last=False)

    def is_running(self, job_id: str) -> bool:
        """Whether we heard that it was begun."""
        return job_id in self._words

    def share_of(self, model_id: str, among: Collection[str]) -> float:
        """Of the jobs under way with these models, the part that is drawn with this one."""
        if len(among) <= 1:
            return 1.0
        models = [word.spec.model for word in self._words.values() if word.spec.model in among]
        return models.count(model_id) / len(models) if model_id in models else 1.0

    def silent_seconds(self, job: Job) -> float:
        """Since this attempt made a step; a job that is new to us begins now."""
        word = self._words.get(job.job_id)
        if word is None or word.attempt != job.attempt:
            self.begun(job)
            return 0.0
        return self._clock() - word.at

    def worker_silent_seconds(self, worker_id: str) -> float:
        """Since a worker said anything; one that is new to us begins now."""
        if worker_id not in self._workers:
            self.heard(worker_id)
        return self._clock() - self._workers[worker_id]

    def forget(self, job_id: str) -> None:
        """It is not being drawn any more."""
        self._words.pop(job_id, None)
        self.steps.pop(job_id, None)

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Forgets all other jobs."""
        for job_id in self._words.keys() - set(job_ids):
            self.forget(job_id)

    def restart_clocks(self) -> None:
        """Silence proves nothing: we did not listen. It counts from now."""
        now = self._clock()
        self._words = {job_id: word._replace(at=now) for job_id, word in self._words.items()}
        self._workers.clear()


def _megapixels(spec: ImageSpec) -> float:
    return spec.width * spec.height / _PIXELS


def _work(spec: ImageSpec) -> float:
    return spec.num_inference_steps * _megapixels(spec)
