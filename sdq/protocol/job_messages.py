"""The messages about jobs: hand in, wait for, take back, list; and draining a worker.

As in ``messages.py``, which has all others and the two lists of what either side may send.
"""

from typing import Annotated

import msgspec

from sdq.protocol.constants import MAX_INTENTS_AT_ONCE, MAX_JOBS_AT_ONCE
from sdq.protocol.model import JobId, WorkerId
from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import (
    BaseMessage,
    BaseRequest,
    CachePolicy,
    Count,
    FirstIndex,
    Key,
    Origin,
    Priority,
    RequestId,
)
from sdq.spec import ImageSpec, SpecDraft

# ---------------------------------------------------------------- client to server


class Submit(BaseRequest, frozen=True):
    """`Generate` without waiting: answered by one `Submitted` as soon as it is committed.

    Pictures that are in the library get a job too, one that has succeeded.
    """

    draft: SpecDraft
    count: Count = 1
    first_index: FirstIndex = 0
    cache: CachePolicy = CachePolicy.PREFER
    priority: Priority = Priority.NORMAL


class Attach(BaseRequest, frozen=True):
    """Waits for jobs, whoever asked for them. Answered as `Generate`; the index of a picture
    is the place of its job in ``job_ids``. Ending it with `Cancel` stops no job, unless it
    ``resumes`` a `Generate` whose connection was lost: then it takes back what that one wanted."""

    job_ids: Annotated[tuple[JobId, ...], msgspec.Meta(min_length=1, max_length=MAX_JOBS_AT_ONCE)]
    resumes: bool = False
    preview: bool = False  # as in `Generate`


class CancelJobs(BaseRequest, frozen=True):
    """Takes back what this person asked for: these jobs, or all that have not ended.

    A job that somebody else wants too goes on. Answer: `JobsCancelled`.
    """

    job_ids: Annotated[tuple[JobId, ...], msgspec.Meta(max_length=MAX_JOBS_AT_ONCE)] = ()
    all_mine: bool = False


class ListJobs(BaseRequest, frozen=True):
    """The newest jobs. Answer: `Jobs`."""

    mine: bool = False  # only those that this person asked for
    ended: bool = False  # also those that came to their end
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a `Generate` would ask for."""

    draft: SpecDraft
    count: Count = 1
    first_index: FirstIndex = 0


class Foresee(BaseRequest, frozen=True):
    """What would become of these requests now; nothing is drawn. Answer: `Foreseen`.

    Together they may ask for `MAX_JOBS_AT_ONCE` pictures.
    """

    intents: Annotated[
        tuple[Intent, ...], msgspec.Meta(min_length=1, max_length=MAX_INTENTS_AT_ONCE)
    ]


class DrainWorker(BaseRequest, frozen=True):
    """A worker finishes what it has begun, hands the rest back and ends. Answer: `Draining`."""

    worker_id: WorkerId


# ---------------------------------------------------------------- server to client


class PlannedPicture(msgspec.Struct, frozen=True):
    index: int
    key: Key
    spec: ImageSpec
    cache: Origin
    job_id: str | None  # None for a hit


class Submitted(BaseMessage, frozen=True):
    """All of them are in the server's table; each has its ``job_id``."""

    request_id: RequestId
    pictures: tuple[PlannedPicture, ...]


class JobInfo(msgspec.Struct, frozen=True):
    """A job, for people and scripts."""

    job_id: JobId
    key: Key
    spec: ImageSpec
    state: JobState
    is_mine: bool
    priority: Priority  # that this person gave, else the highest that anybody gave
    created_seconds_ago: float
    changed_seconds_ago: float  # since its state changed
    attempt: int  # 0 until it was dispatched once
    worker_id: str | None = None
    step: int = 0
    ahead: int | None = None
    eta_seconds: float | None = None
    note: str = ""  # why it waits
    error_code: str = ""
    error_message: str = ""
    draw_seconds: float | None = None


class Jobs(BaseMessage, frozen=True):
    """Newest first. ``more``: how many others there are."""

    request_id: RequestId
    jobs: tuple[JobInfo, ...]
    more: int = 0


class JobsCancelled(BaseMessage, frozen=True):
    """``cancelled`` jobs were stopped, ``kept`` go on for somebody else, ``ended`` had come to
    their end before, ``foreign`` are only other people's."""

    request_id: RequestId
    cancelled: int
    kept: int = 0
    ended: int = 0
    foreign: int = 0
    unknown: tuple[JobId, ...] = ()


class Outlook(msgspec.Struct, frozen=True):
    """What would become of an `Intent`: its pictures, or the error that it would get.

    ``picture_seconds``: of a worker's time, for one picture that is drawn, by the measured speed of
    those that hold the model. ``note``: why nobody draws it now.
    """

    pictures: tuple[PlannedPicture, ...] = ()
    code: str = ""
    message: str = ""
    hint: str = ""
    workers: int = 0  # that take jobs of the model now
    picture_seconds: float | None = None  # None: nobody knows yet
    note: str = ""


class Foreseen(BaseMessage, frozen=True):
    """An `Outlook` for each `Intent`, in their order."""

    request_id: RequestId
    outlooks: tuple[Outlook, ...]


class Draining(BaseMessage, frozen=True):
    """The worker was told; it ends when what it has begun is drawn."""

    request_id: RequestId
    worker_id: WorkerId
    active: int  # jobs that it has in hand
