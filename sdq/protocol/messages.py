"""The messages, as typed structs. ``docs/protocol.md`` tells the same in words.

Those about jobs are in ``job_messages.py``, about the library in ``library_messages.py``.
"""

from typing import Annotated

import msgspec

from sdq.protocol.activity_messages import Activity, GetActivity
from sdq.protocol.catalog_messages import (
    CatalogChanged,
    ListLoras,
    Loras,
    ModelShown,
    PutLora,
    PutModel,
    RemoveLora,
    RemoveModel,
    SetDefaultModel,
    ShowModel,
)
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
    PlannedPicture,
    Submit,
    Submitted,
)
from sdq.protocol.library_messages import (
    FetchPicture,
    FindPictures,
    FoundPictures,
    Pinned,
    PinPictures,
    PruneLibrary,
    Removed,
    RemovePictures,
)
from sdq.protocol.library_messages import StoredPicture as StoredPicture  # found here too
from sdq.protocol.model import ModelInfo, ModelManifest
from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import (
    AtLeastOne,
    BaseMessage,
    BaseRequest,
    Count,
    FirstIndex,
    Key,
    Priority,
    RequestId,
)
from sdq.protocol.vocabulary import CachePolicy as CachePolicy  # found here too
from sdq.protocol.vocabulary import Origin as Origin
from sdq.spec import ImageSpec, Name, SpecDraft

# ---------------------------------------------------------------- both directions


class Ping(BaseMessage, frozen=True):
    """Are you there? Either side may ask; the answer is a `Pong` with the same number."""

    number: RequestId = 0


class Pong(BaseMessage, frozen=True):
    number: RequestId = 0


# ---------------------------------------------------------------- client to server


class Hello(BaseMessage, frozen=True):
    """The first message of a client: the versions of the protocol that it speaks."""

    oldest_protocol: Annotated[int, msgspec.Meta(ge=1)]
    newest_protocol: Annotated[int, msgspec.Meta(ge=1)]
    client: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Generate(BaseRequest, frozen=True):
    """Pictures ``first_index`` … ``first_index + count - 1`` of a draft.

    Answered by `Accepted` (left out when all of them are hits), `Progress` while it
    lasts, and one `Picture` or `Failure` each; or by one `ErrorReply`.
    """

    draft: SpecDraft
    count: Count = 1
    first_index: FirstIndex = 0
    cache: CachePolicy = CachePolicy.PREFER
    wait: bool = True  # False: an error at once when no worker online holds the model
    priority: Priority = Priority.NORMAL
    preview: bool = False  # `Progress` with a small picture of how far it is, now and then


class Cancel(BaseRequest, frozen=True):
    """Ends request ``target``: what nobody else wants is not drawn. Answer: `CancelReply`."""

    target: RequestId


class ListModels(BaseRequest, frozen=True):
    """The models of this server. Answer: `Models`."""


class GetStatus(BaseRequest, frozen=True):
    """How the server and its workers are. Answer: `Status`."""


class WorkerSetup(BaseRequest, frozen=True):
    """What a worker needs to install a model (``None``: the default one)."""

    model: Name | None = None


# ---------------------------------------------------------------- server to client


class Limits(msgspec.Struct, frozen=True):
    """What this server allows, so that a client can refuse before it sends."""

    max_request_bytes: AtLeastOne
    max_reply_bytes: AtLeastOne
    max_prompt_characters: AtLeastOne
    max_count: AtLeastOne
    max_requests_in_flight: AtLeastOne
    idle_timeout_seconds: Annotated[float, msgspec.Meta(gt=0)]


class Welcome(BaseMessage, frozen=True):
    """The server's answer to `Hello`: the version to be spoken from here on."""

    protocol: int
    server: str
    limits: Limits


class ErrorReply(BaseMessage, frozen=True):
    """The request (``None``: the connection) is over. ``code`` as in ``sdq.errors``."""

    request_id: RequestId | None
    code: str
    message: str
    hint: str = ""


class Accepted(BaseMessage, frozen=True):
    """The request is in the server's table: it outlives the server's process."""

    request_id: RequestId
    pictures: tuple[PlannedPicture, ...]


class Progress(BaseMessage, frozen=True):
    """News of one picture that is being waited for."""

    request_id: RequestId
    index: int
    job_id: str
    state: JobState
    step: int = 0
    steps: int = 0
    ahead: int | None = None  # jobs that eligible workers take before this one
    note: str = ""  # the reason for waiting, in words
    eta_seconds: float | None = None  # until the picture is there; None: nobody can say
    preview: bytes = b""  # JPEG, at most `MAX_PREVIEW_BYTES`; empty: none that is new


class Picture(BaseMessage, frozen=True):
    """One picture, whole. ``remaining`` = 0 ends the request."""

    request_id: RequestId
    index: int
    remaining: int
    key: Key
    spec: ImageSpec
    cache: Origin
    draw_seconds: float  # what the worker needed when it was drawn
    image: bytes  # PNG


class Failure(BaseMessage, frozen=True):
    """One picture that will not come. ``remaining`` = 0 ends the request."""

    request_id: RequestId
    index: int
    remaining: int
    code: str
    message: str
    hint: str = ""


class CancelReply(BaseMessage, frozen=True):
    """``cancelled`` jobs were stopped, ``kept`` go on for somebody else."""

    request_id: RequestId
    cancelled: int
    kept: int


class Models(BaseMessage, frozen=True):
    request_id: RequestId
    models: tuple[ModelInfo, ...]


class WorkerStatus(msgspec.Struct, frozen=True):
    worker_id: str
    host: str
    models: tuple[str, ...]
    device: str
    state: str  # loading, ready, drawing, stopping, broken
    active: int
    seconds_per_step: float | None
    seen_seconds_ago: float
    note: str = ""  # why it is stopping or broken, or cannot draw with one of its models
    loaded: tuple[str, ...] = ()  # of the models, those in memory
    memory_free_bytes: int | None = None  # of the device; None: nobody can say


class Status(BaseMessage, frozen=True):
    request_id: RequestId
    server: str
    uptime_seconds: float
    redis: str  # "ok", or what is wrong
    workers: tuple[WorkerStatus, ...]
    queued: int
    dispatched: int
    running: int
    pictures: int
    library_bytes: int
    library_max_bytes: int
    retention_days: float
    pinned_pictures: int = 0
    pinned_bytes: int = 0


class WorkerSettings(BaseMessage, frozen=True):
    """Answer to `WorkerSetup`. ``redis_url`` holds a password: never print it."""

    request_id: RequestId
    redis_url: str
    model: ModelManifest


ClientMessage = (
    Hello
    | Ping
    | Pong
    | Generate
    | Submit
    | Attach
    | Cancel
    | CancelJobs
    | ListJobs
    | Foresee
    | DrainWorker
    | ListModels
    | ShowModel
    | PutModel
    | RemoveModel
    | SetDefaultModel
    | ListLoras
    | PutLora
    | RemoveLora
    | GetStatus
    | GetActivity
    | FindPictures
    | FetchPicture
    | RemovePictures
    | PinPictures
    | PruneLibrary
    | WorkerSetup
)
"""What a client may send."""

ServerMessage = (
    Welcome
    | Ping
    | Pong
    | ErrorReply
    | Accepted
    | Progress
    | Picture
    | Failure
    | CancelReply
    | Submitted
    | Jobs
    | JobsCancelled
    | Foreseen
    | Draining
    | Models
    | ModelShown
    | CatalogChanged
    | Loras
    | Status
    | Activity
    | FoundPictures
    | Removed
    | Pinned
    | WorkerSettings
)
"""What a server may send."""

Message = ClientMessage | ServerMessage
