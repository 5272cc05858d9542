"""What a worker's event does: to the job's row, to the library, to those who wait.

The order is the promise: file and row of the picture first, then the job's state, then the
event may be deleted from the stream. Killed anywhere in between, the server reads the event
again and ends in the same place.
"""

import logging
import struct

from sdq.broker import MAX_IMAGE_BYTES, Begun, Broke, Drawn, Stepped, Stopped, WorkerEvent
from sdq.errors import GenerationFailed, StackError
from sdq.protocol.states import FINAL_STATES, JobState
from sdq.server.job import Job
from sdq.server.jobs import JobTable
from sdq.server.library import Library
from sdq.server.subscriptions import Subscriptions

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3

_PNG_HEAD = struct.Struct(">8s4s4sII")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Outcomes:
    """Applies events. Every method is idempotent: an event may be read twice."""

    def __init__(self, table: JobTable, library: Library, subscriptions: Subscriptions) -> None:
        self._table = table
        self._library = library
        self._subscriptions = subscriptions

    async def apply(self, event: WorkerEvent) -> bool:
        """Applies one event; whether a worker's hands became free or a job waits again."""
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
            case Stopped():
                await self._stopped(event)
        return True

    def _stepped(self, event: Stepped) -> None:
        for subscription in self._subscriptions.of(event.job_id):
            subscription.progress(JobState.RUNNING, step=event.step)

    async def _begun(self, event: Begun) -> None:
        job = await self._table.get(event.job_id)
        if job is None or job.attempt != event.attempt:
            return
        try:
            moved = await self._table.move(job.job_id, JobState.RUNNING, worker_id=event.worker_id)
        except StackError as error:  # a full disk must not hold up the pictures behind this
            log.error("job %s: its beginning cannot be written down: %s", job.job_id, error)
            return
        if moved:
            for subscription in self._subscriptions.of(event.job_id):
                subscription.progress(JobState.RUNNING)

    async def _drawn(self, event: Drawn) -> None:
        """Any attempt's picture is the picture: a late one is as good as the one expected."""
        job = await self._table.get(event.job_id)
        if job is None or job.state in FINAL_STATES:
            return
        if flaw := flaw_of(event.image, job.spec.width, job.spec.height):
            log.warning("job %s: worker %s sent %s", job.job_id, event.worker_id, flaw)
            await self.lost(job, f"worker {event.worker_id} sent {flaw}")
            return
        try:
            if job.keep:
                await self._library.put(job.key, job.spec, event.image, event.draw_seconds)
            await self._table.move(job.job_id, JobState.SUCCEEDED, draw_seconds=event.draw_seconds)
        except StackError as error:
            await self._cannot_keep(job, error)
        self._subscriptions.deliver(job, event.image, event.draw_seconds)

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

    async def _broke(self, event: Broke) -> None:
        job = await self._table.get(event.job_id)
        if job is None or job.attempt != event.attempt or job.state in FINAL_STATES:
            return
        if event.retryable:
            await self.lost(job, event.message, code=event.code)
        else:
            await self._give_up(job, event.code, event.message)

    async def _stopped(self, event: Stopped) -> None:
        job = await self._table.get(event.job_id)
        if job is None or job.attempt != event.attempt or job.state in FINAL_STATES:
            return
        await self.lost(job, "a worker stopped it, and it is wanted")

    async def lost(self, job: Job, cause: str, code: str = GenerationFailed.code) -> None:
        """An attempt came to nothing: the job waits again, or fails with its last cause."""
        if job.attempt >= MAX_ATTEMPTS:
            await self._give_up(job, code, f"{cause} (attempt {job.attempt} of {MAX_ATTEMPTS})")
            return
        log.info("job %s waits again after attempt %d: %s", job.job_id, job.attempt, cause)
        if await self._table.move(job.job_id, JobState.QUEUED, error_message=cause):
            for subscription in self._subscriptions.of(job.job_id):
                subscription.progress(JobState.QUEUED, note=f"once more: {cause}")

    async def _give_up(self, job: Job, code: str, message: str) -> None:
        moved = await self._table.move(
            job.job_id, JobState.FAILED, error_code=code, error_message=message
        )
        if moved:
            self._subscriptions.fail(job.job_id, code, message)


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
