"""`Attach`: waiting for jobs by their ids, from anywhere, also after their end."""

from collections.abc import Sequence

from sdq.errors import Cancelled, GenerationFailed, NotInLibrary, SdqError, StackError, UnknownJob
from sdq.protocol.job_messages import Attach, PlannedPicture
from sdq.protocol.messages import Accepted, Origin
from sdq.protocol.states import FINAL_STATES, JobState
from sdq.server.library.library import Library
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.outcomes import in_words
from sdq.server.queue.subscriptions import Request, Subscription, Subscriptions
from sdq.server.requests.announcing import Announcer

_AGAIN = "`sdq generate` with the same parameters draws it again"


class Attachment:
    """One for the server."""

    def __init__(
        self,
        table: JobTable,
        library: Library,
        subscriptions: Subscriptions,
        announcer: Announcer,
    ) -> None:
        self._table = table
        self._library = library
        self._subscriptions = subscriptions
        self._announcer = announcer

    async def attach(self, message: Attach, request: Request) -> None:
        """Answers for the jobs that have ended and subscribes the request to the others.

        Returns when all that can be said now was said. Cancelling is safe: it wants nothing.
        """
        jobs = await self._table.get_many(message.job_ids)
        awaited = self._subscribe(message, request, jobs)
        await self._announcer.announce(awaited)
        for index, job_id in enumerate(message.job_ids):
            if request.is_cancelled:
                return
            job = jobs.get(job_id)
            if job is None or job.state in FINAL_STATES:
                await self._settle(request, index, job_id, job)
        await self._settle_ended(request, [subscription for subscription, _ in awaited])

    def _subscribe(
        self, message: Attach, request: Request, jobs: dict[str, Job]
    ) -> list[tuple[Subscription, Job]]:
        """Says what is to come, then waits for it; nothing of it is under way: says nothing."""
        found = [
            (index, jobs[job_id]) for index, job_id in enumerate(message.job_ids) if job_id in jobs
        ]
        under_way = [(index, job) for index, job in found if job.state not in FINAL_STATES]
        if under_way:
            planned = tuple(
                PlannedPicture(index, job.key, job.spec, origin, job.job_id)
                for index, job in found
                if (origin := _origin_of(job)) is not None
            )
            request.peer.send(Accepted(request.request_id, planned))
        return [
            (self._subscriptions.add(request, index, job, Origin.JOINED), job)
            for index, job in under_way
        ]

    async def _settle_ended(self, request: Request, awaited: Sequence[Subscription]) -> None:
        """A job may have come to its end between its row was read and the subscription."""
        still = [one for one in awaited if one.is_waiting]
        now = await self._table.get_many([one.job_id for one in still])
        for one in still:
            job = now.get(one.job_id)
            if (job is None or job.state in FINAL_STATES) and one.is_waiting:
                self._subscriptions.end(one)
                await self._settle(request, one.index, one.job_id, job)

    async def _settle(self, request: Request, index: int, job_id: str, job: Job | None) -> None:
        """Gives the picture of a job that has ended, or says why there is none."""
        try:
            if job is not None and job.state is JobState.SUCCEEDED:
                stored = await self._library.get(job.key)
                if stored is not None and not request.is_cancelled:
                    picture = (stored.image, stored.draw_seconds)
                    request.give(index, job.key, job.spec, Origin.HIT, *picture)
                    await request.peer.drained()
                    return
            error = _why_there_is_no_picture(job_id, job)
        except StackError as unreadable:  # the other pictures may come all the same
            error = unreadable
        if not request.is_cancelled:
            request.fail(index, error.code, error.message, error.hint)


def _origin_of(job: Job) -> Origin | None:
    """As it is promised; ``None`` for a job that came to nothing."""
    if job.state is JobState.SUCCEEDED:
        return Origin.HIT
    return None if job.state in FINAL_STATES else Origin.JOINED


def _why_there_is_no_picture(job_id: str, job: Job | None) -> SdqError:
    if job is None:
        return UnknownJob(
            f"the server knows no job {job_id}",
            hint="`sdq jobs` lists those it knows; long after their end they are forgotten",
        )
    if job.state is JobState.CANCELLED:
        return Cancelled("the job was cancelled", hint=_AGAIN)
    if job.state is JobState.FAILED:
        message, hint = in_words(job.error_code, job.error_message)
        error = SdqError(message or "the job failed", hint=hint or _AGAIN)
        error.code = job.error_code or GenerationFailed.code
        return error
    if not job.keep:
        return NotInLibrary("the picture was drawn with --cache off, which keeps none", hint=_AGAIN)
    return NotInLibrary("the picture is no longer in the library", hint=_AGAIN)
