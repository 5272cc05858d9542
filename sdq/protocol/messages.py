"""The messages, as typed structs. ``docs/protocol.md`` tells the same in words.

A message is a msgpack map whose ``type`` names the struct. Every request carries a
``request_id`` that the client chose (unique among its requests under way), and so does
all that the server says about it. Bounds are checked when a message is decoded.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from sdq.protocol.constants import MAX_COUNT
from sdq.protocol.model import ModelInfo, ModelManifest, Sha256
from sdq.protocol.states import JobState
from sdq.spec import ImageSpec, Name, SpecDraft

RequestId = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Key = Sha256
KeyPrefix = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4,64}\Z")]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]


class CachePolicy(StrEnum):
    """How a request may use the library."""

    PREFER = "prefer"  # answer from it, else draw and keep
    ONLY = "only"  # answer from it or not at all
    REFRESH = "refresh"  # draw again and keep the new one
    OFF = "off"  # draw, and keep nothing


class Origin(StrEnum):
    """Where a picture of a reply comes from."""

    HIT = "hit"  # it was in the library
    MADE = "made"  # drawn for this request
    JOINED = "joined"  # drawn for an equal request that was already under way


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Base: the tag is the name of the struct in lower case.

    Unknown fields are ignored, so that a newer peer may say more than we understand.
    """


class _Request(_Message, frozen=True, forbid_unknown_fields=True):
    """Base of what a client asks: a field that would be ignored is refused instead."""

    request_id: RequestId


# ---------------------------------------------------------------- both directions


class Ping(_Message, frozen=True):
    """Are you there? Either side may ask; the answer is a `Pong` with the same number."""

    number: RequestId = 0


class Pong(_Message, frozen=True):
    number: RequestId = 0


# ---------------------------------------------------------------- client to server


class Hello(_Message, frozen=True):
    """The first message of a client: the versions of the protocol that it speaks."""

    oldest_protocol: Annotated[int, msgspec.Meta(ge=1)]
    newest_protocol: Annotated[int, msgspec.Meta(ge=1)]
    client: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Generate(_Request, frozen=True):
    """Pictures ``first_index`` … ``first_index + count - 1`` of a draft.

    Answered by `Accepted` (left out when all of them are hits), `Progress` while it
    lasts, and one `Picture` or `Failure` each; or by one `ErrorReply`.
    """

    draft: SpecDraft
    count: Count = 1
    first_index: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    cache: CachePolicy = CachePolicy.PREFER
    wait: bool = True  # False: an error at once when no worker online holds the model


class Cancel(_Request, frozen=True):
    """Ends request ``target``: what nobody else wants is not drawn. Answer: `CancelReply`."""

    target: RequestId


class ListModels(_Request, frozen=True):
    """The models of this server. Answer: `Models`."""


class GetStatus(_Request, frozen=True):
    """How the server and its workers are. Answer: `Status`."""


class FindPictures(_Request, frozen=True):
    """The newest pictures whose prompt holds all the words. Answer: `FoundPictures`."""

    words: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50


class FetchPicture(_Request, frozen=True):
    """The picture whose key begins so. Answer: `Picture`."""

    key: KeyPrefix


class RemovePictures(_Request, frozen=True):
    """Takes pictures out of the library. Answer: `Removed`."""

    keys: Annotated[tuple[KeyPrefix, ...], msgspec.Meta(max_length=1_000)]


class PruneLibrary(_Request, frozen=True):
    """Applies the retention now. Answer: `Removed`."""


class WorkerSetup(_Request, frozen=True):
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


class Welcome(_Message, frozen=True):
    """The server's answer to `Hello`: the version to be spoken from here on."""

    protocol: int
    server: str
    limits: Limits


class ErrorReply(_Message, frozen=True):
    """The request (``None``: the connection) is over. ``code`` as in ``sdq.errors``."""

    request_id: RequestId | None
    code: str
    message: str
    hint: str = ""


class PlannedPicture(msgspec.Struct, frozen=True):
    index: int
    key: Key
    spec: ImageSpec
    cache: Origin
    job_id: str | None  # None for a hit


class Accepted(_Message, frozen=True):
    """The request is in the server's table: it outlives the server's process."""

    request_id: RequestId
    pictures: tuple[PlannedPicture, ...]


class Progress(_Message, frozen=True):
    """News of one picture that is being waited for."""

    request_id: RequestId
    index: int
    job_id: str
    state: JobState
    step: int = 0
    steps: int = 0
    ahead: int | None = None  # jobs that eligible workers take before this one
    note: str = ""  # the reason for waiting, in words


class Picture(_Message, frozen=True):
    """One picture, whole. ``remaining`` = 0 ends the request."""

    request_id: RequestId
    index: int
    remaining: int
    key: Key
    spec: ImageSpec
    cache: Origin
    draw_seconds: float  # what the worker needed when it was drawn
    image: bytes  # PNG


class Failure(_Message, frozen=True):
    """One picture that will not come. ``remaining`` = 0 ends the request."""

    request_id: RequestId
    index: int
    remaining: int
    code: str
    message: str
    hint: str = ""


class CancelReply(_Message, frozen=True):
    """``cancelled`` jobs were stopped, ``kept`` go on for somebody else."""

    request_id: RequestId
    cancelled: int
    kept: int


class Models(_Message, frozen=True):
    request_id: RequestId
    models: tuple[ModelInfo, ...]


class WorkerStatus(msgspec.Struct, frozen=True):
    worker_id: str
    host: str
    models: tuple[str, ...]
    device: str
    state: str  # loading, ready, drawing, stopping
    active: int
    seconds_per_step: float | None
    seen_seconds_ago: float


class Status(_Message, frozen=True):
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


class StoredPicture(msgspec.Struct, frozen=True):
    """A row of the library. Times in seconds since 1970."""

    key: Key
    spec: ImageSpec
    size_bytes: int
    created_at: float
    last_used_at: float


class FoundPictures(_Message, frozen=True):
    request_id: RequestId
    pictures: tuple[StoredPicture, ...]


class Removed(_Message, frozen=True):
    request_id: RequestId
    pictures: int
    freed_bytes: int


class WorkerSettings(_Message, frozen=True):
    """Answer to `WorkerSetup`. ``redis_url`` holds a password: never print it."""

    request_id: RequestId
    redis_url: str
    model: ModelManifest


ClientMessage = (
    Hello
    | Ping
    | Pong
    | Generate
    | Cancel
    | ListModels
    | GetStatus
    | FindPictures
    | FetchPicture
    | RemovePictures
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
    | Models
    | Status
    | FoundPictures
    | Removed
    | WorkerSettings
)
"""What a server may send."""

Message = ClientMessage | ServerMessage
