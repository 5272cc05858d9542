"""The messages about jobs, each answered by the part that knows how."""

from sdq.errors import UnknownWorker
from sdq.protocol.job_messages import (
    Attach,
    CancelJobs,
    Draining,
    DrainWorker,
    Foresee,
    Foreseen,
    Jobs,
    JobsCancelled,
    ListJobs,
    Submit,
    Submitted,
)
from sdq.protocol.messages import Cancel, CancelReply, Generate
from sdq.server.queue.subscriptions import Request
from sdq.server.session import Session
from sdq.server.wiring import Parts

JobMessage = Submit | Cancel | CancelJobs | ListJobs | Foresee | DrainWorker
JobReply = Submitted | CancelReply | JobsCancelled | Jobs | Foreseen | Draining


class JobRequests:
    """Requests of all sessions."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def wait(self, message: Generate | Attach, session: Session) -> None:
        """Begins a request that ends with its last picture, perhaps long after this returned."""
        if isinstance(message, Generate):
            request = Request(
                message.request_id,
                session,
                remaining=message.count,
                wants_preview=message.preview,
            )
            session.requests[message.request_id] = request
            await self._parts.generation.generate(message, request)
        else:
            request = Request(
                message.request_id,
                session,
                remaining=len(message.job_ids),
                is_attached=not message.resumes,
                wants_preview=message.preview,
            )
            session.requests[message.request_id] = request
            await self._parts.attachment.attach(message, request)

    async def answer(self, message: JobMessage, session: Session) -> JobReply:
        """The one reply to a message. Raises `SdqError`."""
        match message:
            case Submit():
                return await self._parts.submission.submit(message, session.identity)
            case Cancel():
                return await self._cancel(message, session)
            case CancelJobs():
                return await self._parts.cancelling.cancel_jobs(message, session.identity)
            case ListJobs():
                return await self._parts.job_list.list(message, session.identity)
            case Foresee():
                return await self._parts.foresight.foresee(message)
            case DrainWorker():
                return await self._drain(message)

    async def _cancel(self, message: Cancel, session: Session) -> CancelReply:
        request = session.requests.pop(message.target, None)
        if request is None:
            return CancelReply(message.request_id, 0, 0)
        cancelled, kept = await self._parts.cancelling.cancel(request)
        await session.finished(message.target)  # it may be committing jobs still
        late_cancelled, late_kept = request.taken_back
        return CancelReply(message.request_id, cancelled + late_cancelled, kept + late_kept)

    async def _drain(self, message: DrainWorker) -> Draining:
        roster = self._parts.roster
        beat = roster.get(message.worker_id)
        if beat is None:
            online = ", ".join(sorted(beat.worker_id for beat in roster.beats()))
            raise UnknownWorker(
                f"no worker {message.worker_id!r} is online",
                hint=f"online: {online}" if online else "no worker is online at all",
            )
        await self._parts.dispatcher.drain(message.worker_id)
        return Draining(message.request_id, message.worker_id, len(beat.active))
