"""All that server and worker share: the Celery app, names in Redis, payloads.

Names in Redis (``<server>`` is the id that a server gave itself at its first start):

==============================  =========================================================
``sdq.model.<id>.<print>``      Celery queue of one model in one version: the print is the
                                beginning of its fingerprint
``sdq.events.<server>``         stream: begun, succeeded with the picture, failed; deleted
                                entry by entry once the server has committed it
``sdq.progress.<server>``       stream: steps; trimmed, so news may be lost, pictures not
``sdq.cancel.<job_id>``         a number: attempts up to it stop between two steps; expires by
                                itself. The dispatch of an attempt cancels the ones before it
``sdq.preview.<job_id>``        flag: somebody wants to see it while it is drawn; expires
``sdq.drain.<worker_id>``       flag: this worker finishes what it has begun and ends; expires
``sdq.workers``                 sorted set: worker ids by the time of their last heartbeat
``sdq.worker.<worker_id>``      the last heartbeat; expires by itself
``sdq.epoch.<server>``          written by the server; gone when Redis came back empty
==============================  =========================================================

Two streams, not one: a trimmed stream that also carried pictures could lose one.
"""

from typing import Annotated, Any, cast

import msgspec
from celery import Celery

from sdq.protocol.codec import decode, encode
from sdq.protocol.constants import MAX_PREVIEW_BYTES as MAX_PREVIEW_BYTES  # found here too
from sdq.protocol.model import JobId, ModelFile, ModelId, Sha256, WorkerId
from sdq.spec import MAX_LORAS, ImageSpec

DRAW_TASK = "sdq.draw"

HEARTBEAT_INTERVAL_SECONDS = 2.0
HEARTBEAT_TIMEOUT_SECONDS = 8.0
"""A worker that was silent for so long counts as gone."""

CANCEL_FLAG_SECONDS = 3_600
DRAIN_FLAG_SECONDS = 3_600
PROGRESS_STREAM_ENTRIES = 2_000
EVENT_STREAM_ENTRIES = 10_000
"""A stream nobody reads stops growing there; a picture cut off is drawn again."""

PREVIEW_FLAG_SECONDS = 30
"""Who wants to see a picture grow says so again before that; whoever is gone does not."""

MAX_IMAGE_BYTES = 48 * 1024 * 1024
EVENT_FIELD = b"event"

Attempt = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
"""No number is to be trusted: an infinite one would end up in sums and rounding."""

Concurrency = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


def queue_of(model_id: str, fingerprint: str) -> str:
    """Workers with other files of the same model do not get these tasks."""
    return f"sdq.model.{model_id}.{fingerprint[:16]}"


def events_stream(server_id: str) -> str:
    return f"sdq.events.{server_id}"


def progress_stream(server_id: str) -> str:
    return f"sdq.progress.{server_id}"


def cancel_flag(job_id: str) -> str:
    return f"sdq.cancel.{job_id}"


def preview_flag(job_id: str) -> str:
    return f"sdq.preview.{job_id}"


def drain_flag(worker_id: str) -> str:
    return f"sdq.drain.{worker_id}"


def heartbeat_key(worker_id: str) -> str:
    return f"sdq.worker.{worker_id}"


def epoch_key(server_id: str) -> str:
    return f"sdq.epoch.{server_id}"


WORKERS_SET = "sdq.workers"


class DrawTask(msgspec.Struct, frozen=True):
    """The one argument of the Celery task."""

    job_id: JobId
    attempt: Attempt
    server_id: JobId
    spec: ImageSpec
    key: Sha256
    fingerprint: Sha256  # of the model that must draw it
    loras: Annotated[tuple[ModelFile, ...], msgspec.Meta(max_length=MAX_LORAS)] = ()
    """Where the files of the spec's LoRAs are to be had; one that the catalog does not name any
    more is not among them, and a worker that has it draws all the same."""


class _Event(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    job_id: JobId
    attempt: Attempt
    worker_id: WorkerId


class Begun(_Event, frozen=True):
    """A worker began to draw the job: until then it has it in hand at most."""


class Stepped(_Event, frozen=True):
    """Progress; travels in the progress stream. The same step may be told once more when a preview
    of it comes."""

    step: NotNegative
    steps: NotNegative
    preview: Annotated[bytes, msgspec.Meta(max_length=MAX_PREVIEW_BYTES)] = b""  # JPEG


class Drawn(_Event, frozen=True):
    """The job succeeded: a PNG that holds its own spec."""

    image: Annotated[bytes, msgspec.Meta(max_length=MAX_IMAGE_BYTES)]
    draw_seconds: Seconds


class Broke(_Event, frozen=True):
    """The job failed. ``retryable``: bad luck, another attempt may succeed.

    ``code`` as in ``sdq.errors``: ``out_of_memory`` may go well on a larger device.
    """

    code: str
    message: str
    retryable: bool


class Stopped(_Event, frozen=True):
    """The job was cancelled between two steps."""


class Returned(_Event, frozen=True):
    """The worker gives the job back through no fault of it: it is draining, broken, or full."""

    reason: str


WorkerEvent = Begun | Stepped | Drawn | Broke | Stopped | Returned


class HeldModel(msgspec.Struct, frozen=True):
    model_id: ModelId
    fingerprint: Sha256


class Heartbeat(msgspec.Struct, frozen=True):
    """What a worker says of itself every `HEARTBEAT_INTERVAL_SECONDS`."""

    worker_id: WorkerId
    host: str
    models: tuple[HeldModel, ...]
    device: str
    state: str  # loading, ready, drawing, stopping, broken
    active: tuple[JobId, ...]  # jobs in hand, whether begun or not
    concurrency: Concurrency
    seconds_per_step: Seconds | None  # measured; None until the first picture
    versions: dict[str, str]
    sent_at: float  # seconds since 1970, by the worker's clock
    note: str = ""  # why it stops or is broken, or models fail, or what it fetches; in words
    at_once: Concurrency = 1  # of the jobs in hand, so many are drawn together
    loaded: tuple[ModelId, ...] = ()  # in memory now; the other models come when their turn does
    failing: tuple[ModelId, ...] = ()  # installed, and not among ``models``: see the note
    memory_free_bytes: NotNegative | None = None  # of the device; None: nobody can say


def pack(value: msgspec.Struct) -> bytes:
    """A payload or event as msgpack."""
    return encode(value)


def to_argument(task: DrawTask) -> dict[str, Any]:
    """The task as the plain values that Celery serialises."""
    return cast("dict[str, Any]", msgspec.to_builtins(task))


def from_argument(argument: object) -> DrawTask:
    """The checked task. Raises `msgspec.ValidationError`."""
    return msgspec.convert(argument, DrawTask)


def read_event(data: bytes) -> WorkerEvent:
    """A checked event. Raises `InvalidMessage`."""
    return decode(data, cast("type[WorkerEvent]", WorkerEvent))


def read_heartbeat(data: bytes) -> Heartbeat:
    """A checked heartbeat. Raises `InvalidMessage`."""
    return decode(data, Heartbeat)


def make_app(redis_url: str) -> Celery:
    """The Celery app: msgpack only, no results, nothing fetched ahead, early acknowledgement.

    Early acknowledgement and no prefetching mean that nothing hides in a dead worker until
    Celery's visibility time-out: the server sees the missing heartbeat and sends the job again.
    """
    app = Celery("sdq", broker=redis_url, set_as_current=False)
    # CELERY_RESULT_BACKEND and CELERY_BROKER_URL, set for another program, would win over the
    # plain settings, and our prompts would go there.
    app.backend_cls = "disabled"
    app.conf.update(
        broker_read_url=redis_url,
        broker_write_url=redis_url,
        task_serializer="msgpack",
        result_serializer="msgpack",
        accept_content=["msgpack"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_send_sent_event=False,
        event_queue_expires=60,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 12 * 3600,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        task_default_queue="sdq.none",
        task_create_missing_queues=True,
    )
    return app
