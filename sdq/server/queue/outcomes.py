"""What a worker's event does: to the job's row, to the library, to those who wait.

The order is the promise: the picture's file first, then its row and the job's end in one
transaction, then the event may be deleted from the stream. Killed anywhere in between, the server
reads the event again and ends in the same place; no picture is stored twice.

Any attempt's picture is *the* picture; everything else that is said counts only for the job's
present attempt, and each change of the table says so.
"""

import logging
import struct

import aiosqlite

from sdq.broker import (
    MAX_IMAGE_BYTES,
    Begun,
    Broke,
    Drawn,
    Returned,
    Stepped,
    Stopped,
    WorkerEvent,
)
from sdq.errors import GenerationFailed, OutOfMemory, StackError
from sdq.protocol.states import FINAL_STATES, JobState
from sdq.server.library.library import Library
from sdq.server.queue.dispatch import Dispatcher, RedisGone
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.previews import sound_preview
from sdq.server.queue.roster import Roster
from sdq.server.queue.speeds import News, Speeds
from sdq.server.queue.subscriptions import Subscriptions
from sdq.server.tallies import Tallies
from sdq.spec import ImageSpec

log = logging.getLogger(__name__)

MAX_FAILURES = 3
MAX_DEATHS = 5
"""More than failures: a worker that is killed says little about the picture it drew."""

MAX_ATTEMPTS = 1_000
"""Nobody is to blame when a job is given back, but it does not go round for ever either."""

MEMORY_HINT = "ask for a smaller picture, or start a worker on a device with more memory"

_ORDINALS = {1: "first", 2: "second", 3: "third"}
_PNG_HEAD = struct.Struct(">8s4s4sII")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Outcomes:
    """Applies events. Every method is idempotent: an event may be read twice."""

    def __init__(
        self,
        table: JobTable,
        library: Library,
        subscriptions: Subscriptions,
        dispatcher: Dispatcher,
        roster: Roster,
        speeds: Speeds,
        news: News,
        tallies: Tallies,
    ) -> None:
        self._tallies = tallies
        self._table = table
        self._library = library
        self._subscriptions = subscriptions
        self._dispatcher = dispatcher
        self._roster = roster
        self._speeds = speeds
        self._news = news

    async def apply(self, event: WorkerEvent) -> bool:
        """Applies one event; whether a worker's hands became free or a job waits again."""
        self._news.heard(event.worker_id)
        match event:
            case Stepped():
                self._stepped(event)
                return False
            case Begun():
                await self._begun(event)
                return False
            case Drawn():
                await self._drawn(event)
            case Broke():
                await self._broke(event)
            case Stopped() | Returned():
                await self._given_back(event)
        return True

    # ------------------------------------------------------------ under way

    def _stepped(self, event: Stepped) -> None:
        spec = self._news.stepped(event.job_id, event.attempt, event.step)
        preview = sound_preview(event.preview)
        if spec is None and preview:  # of a step that was told before
            spec = self._news.spec_at(event.job_id, event.attempt, event.step)
        if spec is not None:
            self._tell_running(event, spec, event.step, preview)

    def _tell_running(
        self, event: Begun | Stepped, spec: ImageSpec, step: int, preview: bytes = b""
    ) -> None:
        eta_seconds = self._speeds.rest_seconds(event.worker_id, spec, step)
        for subscription in self._subscriptions.of(event.job_id):
            subscription.progress(
                JobState.RUNNING, step=step, eta_seconds=eta_seconds, preview=preview
            )

    async def _begun(self, event: Begun) -> None:
        job = await self._present(event)
        if job is None:
            return
        try:
            moved = await self._table.move(
                job.job_id, JobState.RUNNING, if_attempt=event.attempt, worker_id=event.worker_id
            )
        except StackError as error:  # a full disk must not hold up the pictures behind this
            log.error("job %s: its beginning cannot be written down: %s", job.job_id, error)
            return
        if moved:
            self._news.begun(moved)
            self._subscriptions.wishes.given_out([job.job_id])
            self._tell_running(event, job.spec, 0)

    async def _present(self, event: WorkerEvent) -> Job | None:
        """The event's job, when it has not ended and the event is of its present attempt."""
        job = await self._table.get(event.job_id)
        if job is None or job.state in FINAL_STATES or job.attempt != event.attempt:
            return None
        return job

    # ------------------------------------------------------------ a picture

    async def _drawn(self, event: Drawn) -> None:
        job = await self._table.get(event.job_id)
        if job is None or job.state in FINAL_STATES:
            return
        if flaw := flaw_of(event.image, job.spec.width, job.spec.height):
            log.warning("job %s: worker %s sent %s", job.job_id, event.worker_id, flaw)
            if event.attempt == job.attempt:
                await self.failed(job, f"worker {event.worker_id} sent {flaw}")
            return
        beat = self._roster.get(event.worker_id)
        share = self._news.share_of(job.spec.model, beat.loaded if beat else ())
        self._speeds.learn(event.worker_id, job.spec, event.draw_seconds, model_share=share)
        try:
            if not await self._succeed(job, event):
                return  # it was cancelled meanwhile: nobody may be given it
        except StackError as error:
            await self._cannot_keep(job, error)
        self._tallies.picture_drawn(job.spec.model, event.worker_id, event.draw_seconds)
        self._news.forget(job.job_id)
        self._subscriptions.deliver(job, event.image, event.draw_seconds)
        if event.attempt != job.attempt or job.state is not JobState.RUNNING:
            await self._stop_others(job)

    async def _succeed(self, job: Job, event: Drawn) -> bool:
        """Commits picture and state together; False when the job had ended before."""
        seconds, worker = event.draw_seconds, event.worker_id

        async def settle(inside: aiosqlite.Connection) -> bool:
            return bool(
                await self._table.move_inside(
                    inside,
                    [job.job_id],
                    JobState.SUCCEEDED,
                    draw_seconds=seconds,
                    worker_id=worker,
                )
            )

        if job.keep:
            return await self._library.put(job.key, job.spec, event.image, seconds, settle=settle)
        moved = await self._table.move(
            job.job_id, JobState.SUCCEEDED, draw_seconds=seconds, worker_id=worker
        )
        return moved is not None

    async def _stop_others(self, job: Job) -> None:
        """Another attempt of the job may be in a queue, or on its way to be drawn in vain."""
        try:
            await self._dispatcher.stop([job])
        except RedisGone as error:
            log.warning("job %s may be drawn once more in vain: %s", job.job_id, error)

    async def _cannot_keep(self, job: Job, error: StackError) -> None:
        """The disk is full, say; those who wait get the picture all the same.

        The state first: whoever joins until it is written is among those who get the picture.
        """
        log.error("job %s: the picture cannot be kept: %s", job.job_id, error)
        try:
            await self._table.move(
                job.job_id, JobState.FAILED, error_code=error.code, error_message=str(error)
            )
        except StackError as second:
            log.error("job %s: nor can that be written down: %s", job.job_id, second)

    # ------------------------------------------------------------ no picture

    async def _broke(self, event: Broke) -> None:
        job = await self._present(event)
        if job is None:
            return
        if event.code == OutOfMemory.code:
            await self._out_of_memory(job, event)
        elif event.retryable:
            await self.failed(job, event.message, code=event.code)
        else:
            await self._give_up(job, event.code, event.message)

    async def _out_of_memory(self, job: Job, event: Broke) -> None:
        """Drawing it again helps only where somebody else may draw it."""
        holders = self._roster.holders(job.spec.model, job.fingerprint)
        if event.retryable and any(beat.worker_id != event.worker_id for beat in holders):
            await self.failed(job, event.message, code=event.code)
        else:
            await self._give_up(job, event.code, event.message)

    async def _given_back(self, event: Stopped | Returned) -> None:
        job = await self._present(event)
        if job is None:
            return
        if isinstance(event, Returned):
            cause = f"worker {event.worker_id} gave it back: {event.reason}"
        else:
            cause = f"worker {event.worker_id} stopped it, and it is wanted"
        await self.take_back(job, cause)

    async def failed(self, job: Job, cause: str, code: str = GenerationFailed.code) -> None:
        """An attempt went wrong: the job waits again, or fails with its last cause.

        Of a job that waits again already it was counted: the event is read a second time, after a
        restart between its commit and its deletion.
        """
        if job.state is JobState.QUEUED:
            return
        failures = job.failures + 1
        if failures >= MAX_FAILURES:
            ordinal = _ORDINALS.get(failures, f"{failures}th")
            message = f"{cause} (attempt {job.attempt}, {ordinal} failure)"
            await self._give_up(job, code, message, failures=1)
        else:
            await self._queue_again(job, cause, failures=1)

    async def died(self, job: Job, cause: str) -> None:
        """A worker died while it drew the job: it waits again, or fails after many of them."""
        deaths = job.deaths + 1
        if deaths >= MAX_DEATHS:
            message = f"{deaths} workers died while they drew it; the last: {cause}"
            await self._give_up(job, GenerationFailed.code, message, deaths=1)
        else:
            await self._queue_again(job, cause, deaths=1)

    async def take_back(self, job: Job, cause: str) -> None:
        """The job waits again, and nobody is to blame."""
        if job.attempt >= MAX_ATTEMPTS:
            message = f"{cause} (attempt {job.attempt}: it goes round in circles)"
            await self._give_up(job, GenerationFailed.code, message)
        else:
            await self._queue_again(job, cause)

    async def _queue_again(self, job: Job, cause: str, **counted: int) -> None:
        moved = await self._table.move(
            job.job_id, JobState.QUEUED, if_attempt=job.attempt, worker_id=None, **counted
        )
        if moved:
            log.info("job %s waits again after attempt %d: %s", job.job_id, job.attempt, cause)
            self._news.forget(job.job_id)
            for subscription in self._subscriptions.of(job.job_id):
                subscription.progress(JobState.QUEUED, note=f"once more: {cause}")

    async def _give_up(self, job: Job, code: str, message: str, **counted: int) -> None:
        moved = await self._table.move(
            job.job_id,
            JobState.FAILED,
            if_attempt=job.attempt,
            error_code=code,
            error_message=message,
            **counted,
        )
        if moved:
            log.warning("job %s failed: %s", job.job_id, message)
            self._tallies.job_failed(job.spec.model, code, message)
            self._news.forget(job.job_id)
            self._subscriptions.fail(job.job_id, code, *in_words(code, message))


def in_words(code: str, message: str) -> tuple[str, str]:
    """What a failed job's error says to people: message and hint."""
    if code != OutOfMemory.code:
        return message, ""
    message, _, hint = message.partition("; ")  # the worker's hint is a part of its message
    return message, hint or MEMORY_HINT


def flaw_of(image: bytes, width: int, height: int) -> str:
    """What is wrong with a worker's PNG, in words; empty when nothing is.

    Looks at the head only (PNG specification, 5.2 and 11.2.2): the server decodes no picture.
    """
    if len(image) > MAX_IMAGE_BYTES:
        return f"a picture of {len(image)} bytes"
    if len(image) < _PNG_HEAD.size:
        return "a cut picture"
    signature, _, kind, found_width, found_height = _PNG_HEAD.unpack_from(image)
    if signature != _PNG_SIGNATURE or kind != b"IHDR":
        return "something that is not a PNG"
    if (found_width, found_height) != (width, height):
        return f"{found_width}x{found_height} pixels instead of {width}x{height}"
    return ""
