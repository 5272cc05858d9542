"""One job of a worker: from the Celery task's argument to the last event about it."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future

import msgspec

from sdq.broker import (
    Begun,
    Broke,
    Drawn,
    DrawTask,
    Returned,
    Stepped,
    Stopped,
    WorkerEvent,
    from_argument,
)
from sdq.errors import (
    Cancelled,
    GenerationFailed,
    InvalidSpec,
    OutOfMemory,
    SdqError,
    ServerBusy,
)
from sdq.worker.delivery import Delivery
from sdq.worker.engine import MEMORY_HINT, DrawnImage, Engine, GivenBack
from sdq.worker.identity import Identity
from sdq.worker.lora_store import LoraStore
from sdq.worker.showing import Allowance, Showing
from sdq.worker.watch import Watch

PROGRESS_INTERVAL_SECONDS = 0.2
FLAGS_INTERVAL_SECONDS = 0.2
IDLE_WAKE_SECONDS = 0.25
"""Between two looks at the flags while no step is done: a slow model, or a queue before us."""

BUSY_INTERVAL_SECONDS = 5.0
"""Between two words about a job that waits for its LoRAs."""

ANOTHERS_TURN = "another model has its turn there"

MAX_MESSAGE_CHARACTERS = 500

_log = logging.getLogger(__name__)


class JobRunner:
    """Draws jobs, each in the thread that calls `run`; knows which ones are in hand."""

    def __init__(
        self,
        engine: Engine,
        delivery: Delivery,
        identity: Identity,
        *,
        loras: LoraStore | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._loras = loras
        self._delivery = delivery
        self._identity = identity
        self._on_change = on_change
        self._lock = threading.Lock()
        self._in_hand: dict[tuple[str, int], Watch] = {}
        self._model_of: dict[tuple[str, int], str] = {}
        self._leaving = ""
        self._dropping = False
        self._allowance = Allowance()
        self.untold = 0
        """Jobs whose end Redis did not take, since the worker began to leave."""

    @property
    def active(self) -> tuple[str, ...]:
        """The jobs in hand, begun or not."""
        with self._lock:
            return tuple(sorted({job_id for job_id, _ in self._in_hand}))

    @property
    def active_by_model(self) -> dict[str, int]:
        """How many they are of each model."""
        with self._lock:
            return dict(Counter(self._model_of.values()))

    def make_way(self, serving: Collection[str], elsewhere: Collection[str]) -> None:
        """Gives back what keeps hands from what can be drawn now.

        Of a model that is not among ``serving`` only one job that was not begun stays; not even
        that one when another worker has the model in memory and there is other work here.
        """
        staying: set[str] = set()
        with self._lock:
            counts = Counter(self._model_of.values())
            for name, watch in self._in_hand.items():
                model_id = self._model_of[name]
                if model_id in serving or watch.begun:
                    continue
                has_company = len(self._in_hand) > counts[model_id]
                if model_id in staying or (model_id in elsewhere and has_company):
                    watch.give_back()
                staying.add(model_id)

    def drain(self, reason: str) -> None:
        """Gives back, at once, what the engine has not begun, and whatever comes from now on."""
        with self._lock:
            self._leaving = self._leaving or reason
            for watch in self._in_hand.values():
                watch.poke()

    def drop_all(self, reason: str = "the worker is stopping") -> None:
        """Gives back all jobs at once, those that are being drawn too."""
        self._dropping = True
        self._delivery.hurry()
        self.drain(reason)
        with self._lock:
            for watch in self._in_hand.values():
                watch.drop()

    def run(self, *arguments: object, **named: object) -> None:
        """The Celery task. Whatever it is given, it raises nothing."""
        try:
            if len(arguments) != 1 or named:
                raise msgspec.ValidationError(f"expected one argument, got {len(arguments)}")
            task = from_argument(arguments[0])
        except msgspec.ValidationError as error:
            _log.error("a task was left out, it cannot be read: %s", error)
            return
        name, watch = (task.job_id, task.attempt), Watch()
        with self._lock:
            if name in self._in_hand:
                _log.info("job %s is in hand already", task.job_id)
                return
            self._in_hand[name] = watch
            self._model_of[name] = task.spec.model
        self._on_change()
        try:
            self._finish(task, self._outcome(task, watch))
        finally:
            with self._lock:
                self._in_hand.pop(name)
                self._model_of.pop(name)
            self._on_change()

    def _finish(self, task: DrawTask, event: WorkerEvent) -> None:
        told = self._delivery.deliver(task.server_id, event)
        if not told and self._leaving:
            with self._lock:
                self.untold += 1
        if isinstance(event, Broke):
            _log.warning("job %s failed: %s", task.job_id, event.message)
        elif isinstance(event, Stopped):
            _log.info("job %s was cancelled", task.job_id)
        elif isinstance(event, Returned):
            _log.info("job %s is given back: %s", task.job_id, event.reason)
        elif told and isinstance(event, Drawn):
            _log.info("job %s is drawn, %.2f s", task.job_id, event.draw_seconds)

    def _outcome(self, task: DrawTask, watch: Watch) -> WorkerEvent:
        who = (task.job_id, task.attempt, self._identity.worker_id)
        try:
            drawn = self._draw(task, watch)
            image = self._identity.png(task, drawn)
            return Drawn(*who, image=image, draw_seconds=drawn.draw_seconds)
        except Cancelled:
            return Stopped(*who)
        except (GivenBack, ServerBusy) as error:
            return Returned(*who, _text(error))
        except OutOfMemory as error:  # a larger device may manage
            return Broke(*who, OutOfMemory.code, _text(error), retryable=True)
        except MemoryError as error:  # not on the device, around it
            text = f"not enough memory for the picture's file; {MEMORY_HINT} ({error})"
            return Broke(*who, OutOfMemory.code, text[:MAX_MESSAGE_CHARACTERS], retryable=True)
        except (GenerationFailed, InvalidSpec) as error:  # the same would happen again
            return Broke(*who, error.code, _text(error), retryable=False)
        except SdqError as error:
            return Broke(*who, GenerationFailed.code, _text(error), retryable=True)
        except Exception as error:  # noqa: BLE001 - the server must hear of every end of a job
            _log.debug("job %s", task.job_id, exc_info=True)
            return Broke(*who, GenerationFailed.code, _text(error), retryable=True)

    def _draw(self, task: DrawTask, watch: Watch) -> DrawnImage:
        # An attempt that the server gave up while it lay here must not touch the engine.
        flags = self._delivery.flags(task.job_id, task.attempt)
        if flags.is_cancelled:
            raise Cancelled("the job was cancelled before it was taken")
        if self._leaving:
            raise GivenBack(self._leaving)
        self._identity.check(task)
        if self._loras is None or not task.spec.loras:
            return self._drawn(task, watch, flags.wants_preview)
        with self._loras.held(task.spec.loras, task.loras, self._waits(task, watch)):
            return self._drawn(task, watch, flags.wants_preview)

    def _waits(self, task: DrawTask, watch: Watch) -> Callable[[], None]:
        """To be called while the job waits for its LoRAs: raises what ends that, and says to the
        server that the worker is busy with it, or the job would be taken away from here."""
        told_at = 0.0

        def look() -> None:
            nonlocal told_at
            if self._leaving or watch.is_given_back:
                raise GivenBack(self._leaving or ANOTHERS_TURN)
            if self._delivery.flags(task.job_id, task.attempt).is_cancelled:
                raise Cancelled("the job was cancelled while its LoRA was fetched")
            if time.monotonic() - told_at >= BUSY_INTERVAL_SECONDS:
                told_at = time.monotonic()
                who = (task.job_id, task.attempt, self._identity.worker_id)
                steps = task.spec.num_inference_steps
                self._delivery.report(task.server_id, Stepped(*who, 0, steps))

        return look

    def _drawn(self, task: DrawTask, watch: Watch, wants_preview: bool) -> DrawnImage:
        showing = Showing(watch, task.spec.num_inference_steps, self._allowance)
        showing.is_wanted = wants_preview
        showing.ask()
        future = self._engine.submit(
            task.spec,
            on_step=watch.on_step,
            is_cancelled=watch.is_over,
            wants_preview=watch.wants_preview,
            on_preview=watch.on_preview,
        )
        future.add_done_callback(watch.on_done)
        self._follow(task, future, watch, showing)
        try:
            return future.result()
        except (Cancelled, CancelledError):  # between two steps, or before it was begun
            if watch.is_cancelled:
                raise Cancelled("the picture was cancelled") from None
            reason = self._leaving or self._engine.broken
            if watch.is_given_back:
                reason = reason or ANOTHERS_TURN
            raise GivenBack(reason or "it is stopping") from None

    def _follow(
        self, task: DrawTask, future: "Future[DrawnImage]", watch: Watch, showing: Showing
    ) -> None:
        """Carries news between Redis and the engine's thread, which must never wait for Redis."""
        news = _News(task, self._identity.worker_id, self._delivery, showing)
        looked_at = time.monotonic()
        while not watch.wait(IDLE_WAKE_SECONDS):
            if self._dropping:
                watch.drop()
                future.cancel()
                raise GivenBack(self._leaving)
            if self._leaving or watch.is_given_back:
                future.cancel()  # does nothing to a picture that was begun
            now = time.monotonic()
            if now - looked_at >= FLAGS_INTERVAL_SECONDS and not watch.is_cancelled:
                looked_at = now
                flags = self._delivery.flags(task.job_id, task.attempt)
                showing.is_wanted = flags.wants_preview
                if flags.is_cancelled:
                    watch.cancel()
                    future.cancel()
            news.tell(watch)
            showing.ask()
        news.tell(watch, is_last=True)


class _News:
    """What the server has been told of one picture under way."""

    def __init__(
        self, task: DrawTask, worker_id: str, delivery: Delivery, showing: Showing
    ) -> None:
        self._task = task
        self._who = (task.job_id, task.attempt, worker_id)
        self._delivery = delivery
        self._showing = showing
        self._begun = False
        self._step = 0
        self._told_at = 0.0

    def tell(self, watch: Watch, *, is_last: bool = False) -> None:
        """That it was begun, once; then its steps, but not each of them, and what is to be seen."""
        server_id = self._task.server_id
        if watch.begun and not self._begun:
            self._begun = self._delivery.announce(server_id, Begun(*self._who))
        step, now = watch.step, time.monotonic()
        is_due = is_last or now - self._told_at >= PROGRESS_INTERVAL_SECONDS
        preview = b"" if is_last else self._showing.newest()  # the picture itself is there
        if preview or (step > self._step and is_due):
            self._step, self._told_at = step, now
            steps = self._task.spec.num_inference_steps
            self._delivery.report(server_id, Stepped(*self._who, step, steps, preview))


def _text(error: Exception) -> str:
    if isinstance(error, SdqError):
        text = f"{error.message}; {error.hint}" if error.hint else error.message
    else:
        text = f"{type(error).__name__}: {error}"
    return text[:MAX_MESSAGE_CHARACTERS]
