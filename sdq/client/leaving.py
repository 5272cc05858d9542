"""Takes a request back that is left before its last picture."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from sdq.client.connection import Line
from sdq.protocol.job_messages import CancelJobs, JobsCancelled
from sdq.protocol.messages import Cancel, CancelReply

CANCEL_TIMEOUT_SECONDS = 1.0
"""How long leaving a request waits for the server's word that it is cancelled."""


async def take_back(
    line: Line, targets: Sequence[int], job_ids: Sequence[str] = ()
) -> CancelReply | None:
    """Ends requests of this line, and what this person wants of these jobs.

    Sends it for sure, waits for the answers a little; ``None`` when they did not all come.
    Raises `ConnectionFailed`.
    """
    mailbox = line.new_mailbox()
    asked: list[int] = []
    try:
        asked.extend(line.begin(_cancel(target), mailbox, is_free=True) for target in targets)
        if job_ids:
            asked.append(line.begin(_cancel_jobs(job_ids), mailbox, is_free=True))
        cancelled, kept, kept_jobs = 0, 0, 0
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                for _ in asked:
                    reply = await mailbox.get()
                    if isinstance(reply, CancelReply):
                        cancelled, kept = cancelled + reply.cancelled, kept + reply.kept
                    elif isinstance(reply, JobsCancelled):
                        cancelled += reply.cancelled
                        kept_jobs = reply.kept + reply.foreign
                # What the requests let go on, the jobs' own answer counts once more.
                return CancelReply(targets[0], cancelled, kept_jobs if job_ids else kept)
        return None
    finally:
        for request_id in asked:
            line.forget(request_id)
        mailbox.close()


def _cancel(target: int) -> Callable[[int], Cancel]:
    return lambda request_id: Cancel(request_id=request_id, target=target)


def _cancel_jobs(job_ids: Sequence[str]) -> Callable[[int], CancelJobs]:
    return lambda request_id: CancelJobs(request_id=request_id, job_ids=tuple(job_ids))
