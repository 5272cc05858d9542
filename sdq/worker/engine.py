"""The engine: one thread that owns the pipeline and draws what is handed in.

::

    engine = Engine(load)            engine.start()            engine.wait_ready()
    future = engine.submit(spec, on_step=…, is_cancelled=…)    future.result().image

Here it draws one picture after the other. The interface is made for an engine that stacks
the steps of several pictures: callers only see futures.

With a canary the engine doubts itself: after a picture that is none, or an error that nobody
expected, it draws the canary; when that fails too, it is broken and draws nothing more.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import msgspec
from PIL.Image import Image

from sdq.errors import (
    Cancelled,
    GenerationFailed,
    InvalidSpec,
    ModelError,
    OutOfMemory,
    SdqError,
    ServerBusy,
)
from sdq.spec import ImageSpec
from sdq.worker.canary import fault_of

MAX_WAITING = 64
"""Pictures in the inbox; the worker's concurrency keeps far below."""

SPEED_WEIGHT = 0.3
"""Share of the newest picture in the mean of ``seconds_per_step``."""

CLOSE_TIMEOUT_SECONDS = 5.0
MEMORY_HINT = "ask for a smaller picture, or draw it on a device with more memory"


class NoPicture(GenerationFailed):
    """What came out is no picture: the spec may be to blame, or the model, or the device."""


class GivenBack(SdqError):
    """Not drawn, and the picture is not to blame: somebody else may draw it."""

    code = "given_back"


class Pipeline(Protocol):
    """What the engine draws with; only the engine's thread calls it."""

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Image:
        """The picture. ``on_step(step, steps)`` after each step; what it raises must pass.

        Raises `MemoryError` when there is too little, `GenerationFailed` when the same spec
        would fail again, `NoPicture` when what came out is none; anything else counts as
        bad luck.
        """
        ...


class DrawnImage(msgspec.Struct, frozen=True):
    image: Image
    draw_seconds: float


class _Order(msgspec.Struct, frozen=True):
    spec: ImageSpec
    on_step: Callable[[int, int], None]
    is_cancelled: Callable[[], bool]
    future: "Future[DrawnImage]"


class Engine:
    """Draws with what ``load`` returns. ``load`` runs in the engine's own thread, once.

    ``prove_first``: the canary must succeed before the engine is ready. ``on_broken`` is called
    at most once, in the engine's thread, with the reason; it must be quick.
    """

    def __init__(
        self,
        load: Callable[[], Pipeline],
        *,
        max_waiting: int = MAX_WAITING,
        canary: ImageSpec | None = None,
        prove_first: bool = False,
        on_broken: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._load = load
        self._canary = canary
        self._prove_first = prove_first
        self._on_broken = on_broken
        self._inbox: queue.Queue[_Order | None] = queue.Queue(max_waiting)
        self._ready: Future[None] = Future()
        self._closing = threading.Event()
        self._entrance = threading.Lock()  # nothing comes in once we are closing
        self._thread = threading.Thread(target=self._run, name="sdq-engine", daemon=True)
        self.broken = ""
        """Why the canary failed; empty while the engine is sound."""
        self.seconds_per_step: float | None = None
        """Exponential mean over the pictures so far; ``None`` before the first."""

    def start(self) -> None:
        """Begins to load; returns at once."""
        self._thread.start()

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Waits for the model. Raises what loading raised, `GivenBack` when the canary that
        was to be drawn first failed, or `TimeoutError`."""
        self._ready.result(timeout_seconds)

    def submit(
        self,
        spec: ImageSpec,
        *,
        on_step: Callable[[int, int], None],
        is_cancelled: Callable[[], bool],
    ) -> "Future[DrawnImage]":
        """Hands a picture in. Both callables run in the engine's thread and must be quick;
        the first step told is number 0, when drawing begins.

        The future raises `Cancelled` when ``is_cancelled`` said so between two steps,
        `OutOfMemory`, `GenerationFailed` when drawing again would fail again, `GivenBack` when
        the engine is broken, else the cause. Its own ``cancel`` works until drawing begins.
        Raises `ServerBusy` when the inbox is full or closed, `GivenBack` when it is broken.
        """
        order = _Order(spec, on_step, is_cancelled, Future())
        try:
            with self._entrance:
                if self.broken:
                    raise _out_of_order(self.broken)
                if self._closing.is_set():
                    raise ServerBusy("the worker is stopping")
                self._inbox.put_nowait(order)
        except queue.Full:
            raise ServerBusy(
                f"{self._inbox.maxsize} pictures wait for this worker already",
                hint="another attempt will find room",
            ) from None
        return order.future

    def close(self, timeout_seconds: float = CLOSE_TIMEOUT_SECONDS) -> bool:
        """Ends the picture in hand between two steps and drops the rest.

        True when the thread is gone; a thread inside a long step may need more time.
        """
        self._refuse_all()
        self._inbox.put_nowait(None)  # wakes the thread
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # ------------------------------------------------------------ the engine's thread

    def _run(self) -> None:
        try:
            pipeline = self._load()
        except Exception as error:  # noqa: BLE001 - a library's defect must not leave us waiting
            self._refuse_all()
            self._ready.set_exception(_load_failure(error))
            return
        if self._prove_first and (fault := self._prove(pipeline)):
            self._break(fault)
            self._ready.set_exception(_out_of_order(fault))
            return
        self._ready.set_result(None)
        while not self._closing.is_set():
            order = self._inbox.get()
            if order is not None and order.future.set_running_or_notify_cancel():
                self._answer(pipeline, order)

    def _answer(self, pipeline: Pipeline, order: _Order) -> None:
        try:
            drawn = self._draw(pipeline, order)
        except MemoryError as error:
            order.future.set_exception(_too_large(order.spec, error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits must hear it
            fault = self._prove(pipeline) if _is_suspicious(error) else ""
            if fault:
                self._break(fault)
            order.future.set_exception(_out_of_order(fault) if fault else error)
        else:
            order.future.set_result(drawn)

    def _draw(self, pipeline: Pipeline, order: _Order) -> DrawnImage:
        spec = order.spec

        def on_step(step: int, steps: int) -> None:
            # Raised, not pipeline._interrupt: that returns a half-made picture as if done.
            if self._closing.is_set() or order.is_cancelled():
                raise Cancelled("the picture was cancelled")
            order.on_step(step, steps)

        on_step(0, spec.num_inference_steps)
        began = time.perf_counter()
        image = pipeline.draw(spec, on_step)
        seconds = time.perf_counter() - began
        if not image.getbbox():
            raise NoPicture(
                "the picture came out all black",
                hint="other steps, guidance or another scheduler may help",
            )
        self._measure(seconds / spec.num_inference_steps)
        return DrawnImage(image=image, draw_seconds=seconds)

    def _prove(self, pipeline: Pipeline) -> str:
        """Draws the canary: what is wrong with it, or nothing. Given up when we are closing."""
        if self._canary is None:
            return ""

        def on_step(step: int, steps: int) -> None:
            if self._closing.is_set():
                raise Cancelled("the worker is stopping")

        try:
            return fault_of(pipeline.draw(self._canary, on_step), self._canary)
        except Cancelled:
            return ""
        except SdqError as error:
            return error.message or error.code
        except Exception as error:  # noqa: BLE001 - a proof that ends badly is the answer
            return f"{type(error).__name__}: {error}"

    def _break(self, fault: str) -> None:
        self.broken = fault
        self._refuse_all()
        self._on_broken(fault)

    def _measure(self, seconds: float) -> None:
        before = self.seconds_per_step
        mean = seconds if before is None else before + SPEED_WEIGHT * (seconds - before)
        self.seconds_per_step = mean

    def _refuse_all(self) -> None:
        with self._entrance:
            self._closing.set()
        self._drop_waiting()

    def _drop_waiting(self) -> None:
        while True:
            try:
                order = self._inbox.get_nowait()
            except queue.Empty:
                return
            if order is not None:
                order.future.cancel()


def _is_suspicious(error: Exception) -> bool:
    """Whether the model or the device may be to blame, and not the picture that was asked for."""
    if isinstance(error, NoPicture):
        return True
    return not isinstance(error, GenerationFailed | InvalidSpec)


def _out_of_order(fault: str) -> GivenBack:
    return GivenBack(f"the worker is broken, its proof picture failed: {fault}")


def _load_failure(error: Exception) -> SdqError:
    if isinstance(error, SdqError):
        return error
    return ModelError(f"the model cannot be loaded: {type(error).__name__}: {error}")


def _too_large(spec: ImageSpec, error: MemoryError) -> OutOfMemory:
    return OutOfMemory(
        f"not enough memory to draw {spec.width}x{spec.height}: {str(error)[:200]}".rstrip(": "),
        hint=MEMORY_HINT,
    )
