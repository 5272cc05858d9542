"""One job of a worker: from the Celery task's argument to the last event about it."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import msgspec

from sdq.broker import (
    MAX_IMAGE_BYTES,
    Begun,
    Broke,
    Drawn,
    DrawTask,
    Stepped,
    Stopped,
    WorkerEvent,
    from_argument,
)
from sdq.errors import Cancelled, GenerationFailed, InvalidSpec, ModelError, SdqError
from sdq.metadata import Provenance, png_bytes
from sdq.protocol.model import ModelManifest
from sdq.spec import SIZE_MULTIPLE
from sdq.worker.delivery import Delivery
from sdq.worker.engine import DrawnImage, Engine
from sdq.worker.pipelines import SCHEDULERS

PROGRESS_INTERVAL_SECONDS = 0.2
CANCEL_INTERVAL_SECONDS = 0.2
IDLE_WAKE_SECONDS = 0.25
"""Between two looks at the flags while no step is done: a slow model, or a queue before us."""

MAX_MESSAGE_CHARACTERS = 500

_log = logging.getLogger(__name__)


class Identity(msgspec.Struct, frozen=True):
    """What goes into events and files about this worker."""

    worker_id: str
    manifest: ModelManifest
    device: str
    versions: dict[str, str]

    @property
    def model_hash(self) -> str:
        """First 10 hexadecimal digits of the largest weights file's SHA-256.

        A1111 hashes its one checkpoint; the largest file (the UNet) comes nearest to that.
        """
        files = [f for f in self.manifest.files if f.path.endswith(".safetensors")]
        largest = max(files or self.manifest.files, key=lambda file: file.size_bytes or 0)
        return largest.sha256[:10]


class JobRunner:
    """Draws jobs, each in the thread that calls `run`; knows which ones are in hand."""

    def __init__(
        self,
        engine: Engine,
        delivery: Delivery,
        identity: Identity,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._delivery = delivery
        self._identity = identity
        self._on_change = on_change
        self._lock = threading.Lock()
        self._in_hand: set[tuple[str, int]] = set()
        self._dropping = threading.Event()

    @property
    def active(self) -> tuple[str, ...]:
        """The jobs in hand."""
        with self._lock:
            return tuple(sorted({job_id for job_id, _ in self._in_hand}))

    def drop_all(self) -> None:
        """Hands the jobs back: they end at once, and the server may give them to another."""
        self._dropping.set()
        self._delivery.hurry()

    def run(self, *arguments: object, **named: object) -> None:
        """The Celery task. Whatever it is given, it raises nothing."""
        try:
            if len(arguments) != 1 or named:
                raise msgspec.ValidationError(f"expected one argument, got {len(arguments)}")
            task = from_argument(arguments[0])
        except msgspec.ValidationError as error:
            _log.error("a task was left out, it cannot be read: %s", error)
            return
        name = (task.job_id, task.attempt)
        with self._lock:
            if name in self._in_hand:
                _log.info("job %s is in hand already", task.job_id)
                return
            self._in_hand.add(name)
        self._on_change()
        try:
            self._finish(task)
        finally:
            with self._lock:
                self._in_hand.discard(name)
            self._on_change()

    def _finish(self, task: DrawTask) -> None:
        event = self._outcome(task)
        told = self._delivery.deliver(task.server_id, event)
        if isinstance(event, Broke):
            _log.warning("job %s failed: %s", task.job_id, event.message)
        elif isinstance(event, Stopped):
            _log.info("job %s was cancelled", task.job_id)
        elif told and isinstance(event, Drawn):
            _log.info("job %s is drawn, %.2f s", task.job_id, event.draw_seconds)

    def _outcome(self, task: DrawTask) -> WorkerEvent:
        who = (task.job_id, task.attempt, self._identity.worker_id)
        try:
            self._refuse_foreign(task)
            self._delivery.announce(task.server_id, Begun(*who))
            drawn = self._draw(task)
            return Drawn(*who, image=self._png(task, drawn), draw_seconds=drawn.draw_seconds)
        except Cancelled:
            return Stopped(*who)
        except (GenerationFailed, InvalidSpec) as error:  # the same would happen again
            return Broke(*who, type(error).code, _text(error), retryable=False)
        except SdqError as error:
            return Broke(*who, GenerationFailed.code, _text(error), retryable=True)
        except Exception as error:  # noqa: BLE001 - the server must hear of every end of a job
            _log.debug("job %s", task.job_id, exc_info=True)
            return Broke(*who, GenerationFailed.code, _text(error), retryable=True)

    def _refuse_foreign(self, task: DrawTask) -> None:
        manifest, spec = self._identity.manifest, task.spec
        if task.fingerprint != manifest.fingerprint:
            raise ModelError(
                f"this worker holds {manifest.model_id} with other files than the job asks for",
                hint="run `sdq worker install` on it again",
            )
        limits = manifest.limits
        if (
            spec.width % SIZE_MULTIPLE
            or spec.height % SIZE_MULTIPLE
            or spec.width * spec.height > limits.max_pixels
            or not limits.min_side <= min(spec.width, spec.height)
            or not max(spec.width, spec.height) <= limits.max_side
        ):
            raise InvalidSpec(f"{manifest.model_id} cannot draw {spec.width}x{spec.height}")
        if spec.scheduler not in SCHEDULERS:
            raise InvalidSpec(f"this worker has no scheduler {spec.scheduler[:40]!r}")
        if spec.num_inference_steps > limits.max_steps:
            raise InvalidSpec(f"{manifest.model_id} takes at most {limits.max_steps} steps")

    def _draw(self, task: DrawTask) -> DrawnImage:
        watch = _Watch()
        future = self._engine.submit(
            task.spec,
            on_step=watch.on_step,
            is_cancelled=lambda: watch.cancelled.is_set() or self._dropping.is_set(),
        )
        future.add_done_callback(watch.on_done)
        self._follow(task, future, watch)
        try:
            return future.result()
        except CancelledError:  # taken back before it was begun
            if watch.cancelled.is_set():
                raise Cancelled("the picture was cancelled") from None
            raise _stopping() from None
        except Cancelled:
            if watch.cancelled.is_set():
                raise
            raise _stopping() from None

    def _follow(self, task: DrawTask, future: "Future[DrawnImage]", watch: "_Watch") -> None:
        """Carries news between Redis and the engine's thread, which must never wait for Redis."""
        told_step, told_at, looked_at = 0, 0.0, 0.0
        while not watch.wait(IDLE_WAKE_SECONDS):
            if self._dropping.is_set():
                future.cancel()
                raise _stopping()
            now = time.monotonic()
            if now - looked_at >= CANCEL_INTERVAL_SECONDS and not watch.cancelled.is_set():
                looked_at = now
                if self._delivery.is_cancelled(task.job_id):
                    watch.cancelled.set()
                    future.cancel()
            if watch.step > told_step and now - told_at >= PROGRESS_INTERVAL_SECONDS:
                told_step, told_at = watch.step, now
                self._report(task, told_step)
        if watch.step > told_step:
            self._report(task, watch.step)

    def _report(self, task: DrawTask, step: int) -> None:
        steps = task.spec.num_inference_steps
        event = Stepped(task.job_id, task.attempt, self._identity.worker_id, step, steps)
        self._delivery.report(task.server_id, event)

    def _png(self, task: DrawTask, drawn: DrawnImage) -> bytes:
        identity = self._identity
        provenance = Provenance(
            spec=task.spec,
            key=task.key,
            fingerprint=task.fingerprint,
            model_hash=identity.model_hash,
            device=identity.device,
            versions=identity.versions,
        )
        data = png_bytes(drawn.image, provenance)
        if len(data) > MAX_IMAGE_BYTES:
            raise GenerationFailed(
                f"the file would have {len(data)} bytes, {MAX_IMAGE_BYTES} are allowed",
                hint="ask for a smaller picture",
            )
        return data


class _Watch:
    """What the engine's thread and a job's thread tell each other about one picture."""

    def __init__(self) -> None:
        self.step = 0
        self.cancelled = threading.Event()
        self._done = False
        self._news = False
        self._changed = threading.Condition()

    def on_step(self, step: int, steps: int) -> None:
        with self._changed:
            self.step = step
            self._news = True
            self._changed.notify()

    def on_done(self, _future: "Future[DrawnImage]") -> None:
        with self._changed:
            self._done = True
            self._changed.notify()

    def wait(self, timeout_seconds: float) -> bool:
        """Until there is news or the time is over; True when the picture is done with."""
        with self._changed:
            if not self._done and not self._news:
                self._changed.wait(timeout_seconds)
            self._news = False
            return self._done


def _stopping() -> SdqError:
    return SdqError("the worker was stopped while it had the job")


def _text(error: Exception) -> str:
    if isinstance(error, SdqError):
        text = f"{error.message}; {error.hint}" if error.hint else error.message
    else:
        text = f"{type(error).__name__}: {error}"
    return text[:MAX_MESSAGE_CHARACTERS]
