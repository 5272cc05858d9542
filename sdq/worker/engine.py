"""The engine: one thread that owns the pipeline and draws what is handed in.

::

    engine = Engine([Holding(…)])     engine.start()            engine.wait_ready()
    future = engine.submit(spec, on_step=…, is_cancelled=…)    future.result().image

Each turn of the thread takes one step of all pictures of one group at once, then decodes some
of those that are finished (`sdq.worker.turns`). What arrives joins at the next turn, what is
cancelled leaves between two. With nothing in flight the thread sleeps until something arrives.

With a canary the engine doubts itself: after a picture that is none, or an error that nobody
expected, it draws the canary; when that fails too, it is broken and draws nothing more.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from PIL.Image import Image

from sdq.errors import Cancelled, ModelError, SdqError, ServerBusy
from sdq.spec import ImageSpec
from sdq.worker.canary import prove
from sdq.worker.flight import NoPicture, OnStep, Pipeline
from sdq.worker.holding import Holding
from sdq.worker.picture import MEMORY_HINT, DrawnImage, GivenBack, Order, is_suspicious
from sdq.worker.turns import Faults, Turns
from sdq.worker.whole import as_pipeline

__all__ = ["MEMORY_HINT", "DrawnImage", "Engine", "GivenBack", "NoPicture", "Pipeline"]

MAX_WAITING = 64
"""Pictures in the inbox; the worker's concurrency keeps far below."""

SPEED_WEIGHT = 0.3
"""Share of the newest picture in the mean of ``seconds_per_step``."""

CLOSE_TIMEOUT_SECONDS = 5.0


class Engine:
    """Draws with the models that it holds. Their ``load`` runs in a thread of the engine's.

    ``prove_first``: the canary must succeed before the engine is ready. ``on_broken`` is called
    at most once, in the engine's thread, with the reason; it must be quick.
    """

    def __init__(
        self,
        holdings: Sequence[Holding],
        *,
        max_waiting: int = MAX_WAITING,
        budget_bytes: int = 0,
        keep_alive_seconds: float = 0.0,
        prove_first: bool = False,
        on_broken: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._holdings = {holding.model_id: holding for holding in holdings}
        self._load = holdings[0].load
        self._canary = holdings[0].canary
        self._loaded: tuple[str, ...] = ()
        self._prove_first = prove_first
        self._on_broken = on_broken
        self._inbox: queue.Queue[Order | None] = queue.Queue(max_waiting)
        self._next: Order | None = None  # out of the inbox, and no room for it yet
        self._ready: Future[None] = Future()
        self._closing = threading.Event()
        self._entrance = threading.Lock()  # nothing comes in once we are closing
        self._thread = threading.Thread(target=self._run, name="sdq-engine", daemon=True)
        self.at_once = 1
        """Pictures that the pipeline draws at once; known when the engine is ready."""
        self.broken = ""
        """Why the canary failed; empty while the engine is sound."""
        self.seconds_per_step: float | None = None
        """Exponential mean over the pictures so far; ``None`` before the first. A picture's
        time is from its beginning to its end, whoever else had a share of it."""

    def start(self) -> None:
        """Begins to load; returns at once."""
        self._thread.start()

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Waits for the model. Raises what loading raised, `GivenBack` when the canary that
        was to be drawn first failed, or `TimeoutError`."""
        self._ready.result(timeout_seconds)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are in memory now."""
        return self._loaded

    def submit(
        self,
        spec: ImageSpec,
        *,
        on_step: OnStep,
        is_cancelled: Callable[[], bool],
        wants_preview: Callable[[], bool] = lambda: False,
        on_preview: Callable[[Image], None] = lambda image: None,
    ) -> "Future[DrawnImage]":
        """Hands a picture in. Both callables run in the engine's thread and must be quick;
        the first step told is number 0, when drawing begins.

        The future raises `Cancelled` when ``is_cancelled`` said so between two steps,
        `OutOfMemory`, `GenerationFailed` when drawing again would fail again, `GivenBack` when
        the engine is broken, else the cause. Its own ``cancel`` works until drawing begins.
        Raises `ServerBusy` when the inbox is full or closed, `GivenBack` when it is broken.
        """
        if spec.model not in self._holdings:
            raise GivenBack(f"this worker does not hold the model {spec.model!r}")
        order = Order(spec, on_step, is_cancelled, Future())
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
        """Ends the pictures in flight between two steps and drops the rest.

        True when the thread is gone; a thread inside a long step may need more time.
        """
        self._refuse_all()
        self._inbox.put_nowait(None)  # wakes the thread
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _refuse_all(self) -> None:
        with self._entrance:
            self._closing.set()
        while True:
            try:
                order = self._inbox.get_nowait()
            except queue.Empty:
                return
            if order is not None:
                order.future.cancel()

    # ------------------------------------------------------------ the engine's thread

    def _run(self) -> None:
        try:
            pipeline = as_pipeline(self._load())
        except Exception as error:  # noqa: BLE001 - a library's defect must not leave us waiting
            self._refuse_all()
            self._ready.set_exception(_load_failure(error))
            return
        if self._prove_first and (fault := self._prove(pipeline)):
            self._break(fault)
            self._ready.set_exception(_out_of_order(fault))
            return
        self.at_once = pipeline.capacity.pictures
        self._loaded = tuple(self._holdings)[:1]
        self._ready.set_result(None)
        self._take_turns(pipeline)

    def _take_turns(self, pipeline: Pipeline) -> None:
        turns = Turns(pipeline, is_closing=self._closing.is_set, on_drawn=self._measure)
        while not self._closing.is_set():
            for order in self._arrivals(turns):
                self._settle(pipeline, turns.begin(order))
            self._settle(pipeline, turns.turn())
        if self.broken:
            turns.abandon(_out_of_order(self.broken))
        else:
            turns.abandon(Cancelled("the worker is stopping"))
        if self._next is not None:
            self._next.future.cancel()

    def _arrivals(self, turns: Turns) -> Iterator[Order]:
        """What may begin now. Sleeps while nothing is in flight and nothing has arrived."""
        while not self._closing.is_set():
            if self._next is None:
                try:
                    self._next = self._inbox.get(block=not len(turns))
                except queue.Empty:
                    return
            if self._next is None or not turns.has_room(self._next):
                return  # first come, first served: nobody smaller overtakes it
            order, self._next = self._next, None
            yield order

    def _settle(self, pipeline: Pipeline, faults: Faults) -> None:
        """Tells those whose pictures came to nothing, after a look at whose fault it is."""
        if not faults:
            return
        doubt = any(is_suspicious(error) for _, error in faults)
        broken = self._prove(pipeline) if doubt else ""
        if broken:
            self._break(broken)
        for picture, error in faults:
            blameless = broken and is_suspicious(error)
            picture.fail(_out_of_order(broken) if blameless else error)

    def _prove(self, pipeline: Pipeline) -> str:
        """Draws the canary: what is wrong with it, or nothing. Given up when we are closing.

        What is in flight waits meanwhile.
        """
        return prove(pipeline, self._canary, self._check_open) if self._canary else ""

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the worker is stopping")

    def _break(self, fault: str) -> None:
        self.broken = fault
        self._refuse_all()
        self._on_broken(fault)

    def _measure(self, seconds: float) -> None:
        before = self.seconds_per_step
        mean = seconds if before is None else before + SPEED_WEIGHT * (seconds - before)
        self.seconds_per_step = mean


def _out_of_order(fault: str) -> GivenBack:
    return GivenBack(f"the worker is broken, its proof picture failed: {fault}")


def _load_failure(error: Exception) -> SdqError:
    if isinstance(error, SdqError):
        return error
    return ModelError(f"the model cannot be loaded: {type(error).__name__}: {error}")
