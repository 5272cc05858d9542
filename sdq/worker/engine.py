"""The engine: one thread that draws what is handed in, with the models that are in memory.

::

    engine = Engine([Holding(…), …])  engine.start()            engine.wait_ready()
    future = engine.submit(spec, on_step=…, is_cancelled=…)     future.result().image

Each turn of the thread takes one step of all pictures of one group at once, then decodes some
of those that are finished (`sdq.worker.turns`). What arrives joins at the next turn, what is
cancelled leaves between two. Several models take turns with each other; they come into memory
and leave it beside the thread (`sdq.worker.residency`), and what is drawn goes on
meanwhile. With nothing to do the thread sleeps until something arrives.

With a canary the engine doubts itself: after a picture that is none, or an error that nobody
expected, it draws that model's canary; when that fails too, it is broken and draws nothing more.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from PIL.Image import Image

from sdq.errors import Cancelled, ModelError, SdqError, ServerBusy
from sdq.spec import ImageSpec
from sdq.worker.canary import prove
from sdq.worker.flight import NoPicture, OnStep, Pipeline
from sdq.worker.holding import Holding
from sdq.worker.inbox import Inbox
from sdq.worker.picture import MEMORY_HINT, DrawnImage, GivenBack, Order, is_suspicious
from sdq.worker.residency import Residency, not_loaded
from sdq.worker.residents import PATIENCE_SECONDS, Resident, Residents
from sdq.worker.turns import Faults, Turns

__all__ = ["MEMORY_HINT", "DrawnImage", "Engine", "GivenBack", "NoPicture", "Pipeline"]

MAX_WAITING = 64
"""Pictures in the inbox; the worker's concurrency keeps far below."""

SPEED_WEIGHT = 0.3
"""Share of the newest picture in the mean of ``seconds_per_step``."""

CLOSE_TIMEOUT_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Engine:
    """Draws with the models that it holds; the first one is loaded at the start, the others when
    a picture asks for them.

    ``budget_bytes``: memory for all models together (0: no limit); one alone always may come.
    ``keep_alive_seconds``: a model with nothing to do leaves memory after so long (0: it stays).
    ``patience_seconds``: for so long at least a picture waits for models that have work.
    ``prove_first``: each model's canary must succeed before it draws anything else. ``on_broken``
    is called at most once, with the reason, ``on_change`` whenever `loaded` or `serving` has
    changed; both in the engine's thread, and they must be quick.
    """

    def __init__(
        self,
        holdings: Sequence[Holding],
        *,
        max_waiting: int = MAX_WAITING,
        budget_bytes: int = 0,
        keep_alive_seconds: float = 0.0,
        patience_seconds: float = PATIENCE_SECONDS,
        prove_first: bool = False,
        on_broken: Callable[[str], None] = lambda reason: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._holdings = {holding.model_id: holding for holding in holdings}
        self._unproven = set(self._holdings) if prove_first else set()
        self._on_broken = on_broken
        self._on_change = on_change
        self._inbox = Inbox(max_waiting)
        self._residency = Residency(
            holdings,
            Residents(
                holdings,
                budget_bytes=budget_bytes,
                keep_alive_seconds=keep_alive_seconds,
                patience_seconds=patience_seconds,
            ),
            make_turns=self._make_turns,
            on_done=self._inbox.wake,
            on_change=self._note_change,
        )
        self._ready: Future[None] = Future()
        self._closing = threading.Event()
        self._entrance = threading.Lock()  # nothing comes in once we are closing
        self._thread = threading.Thread(target=self._run, name="sdq-engine", daemon=True)
        self.at_once = 1
        """Pictures that are drawn at once, by the model in memory that draws most of them; known
        when the engine is ready."""
        self.broken = ""
        """Why the canary failed; empty while the engine is sound."""
        self.broken_model = ""
        """Whose canary that was."""
        self.seconds_per_step: float | None = None
        """Exponential mean over the pictures so far; ``None`` before the first. A picture's
        time is from its beginning to its end, whoever else had a share of it."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are in memory now."""
        return self._residency.residents.loaded

    @property
    def serving(self) -> tuple[str, ...]:
        """The models that may begin a picture soon: those in memory that need not leave for
        another one, and those that come."""
        return self._residency.serving

    @property
    def unloadable(self) -> dict[str, str]:
        """Models that could not be loaded a short while ago, and why. What asks for them is given
        back until the next try is due: a worker should take no jobs for them meanwhile."""
        return self._residency.refusals.reasons()

    def start(self) -> None:
        """Begins to load; returns at once."""
        self._thread.start()

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Waits for the first model that can be loaded. Raises what loading the last one raised,
        `GivenBack` when the canary that was to be drawn first failed, `Cancelled` when it was
        closed before, or `TimeoutError`."""
        self._ready.result(timeout_seconds)

    def submit(
        self,
        spec: ImageSpec,
        *,
        on_step: OnStep,
        is_cancelled: Callable[[], bool],
        wants_preview: Callable[[], bool] = lambda: False,
        on_preview: Callable[[Image], None] = lambda image: None,
    ) -> "Future[DrawnImage]":
        """Hands a picture in. The callables run in the engine's thread and must be quick. The
        first step told is number 0, when drawing begins. ``wants_preview`` is asked after each
        step but the last; ``on_preview`` gets the picture as far as it is, if that can be seen.

        The future raises `Cancelled` when ``is_cancelled`` said so between two steps,
        `OutOfMemory`, `GenerationFailed` when drawing again would fail again, `GivenBack` when
        the engine is broken or the model cannot be loaded now, else the cause. Its own ``cancel``
        works until drawing begins. Raises `ServerBusy` when the inbox is full or closed,
        `GivenBack` when the engine is broken, or cannot draw with this model.
        """
        order = Order(
            spec, on_step, is_cancelled, Future(), wants_preview, on_preview, time.monotonic()
        )
        with self._entrance:
            if self.broken:
                raise _out_of_order(self.broken)
            if self._closing.is_set():
                raise ServerBusy("the worker is stopping")
            if spec.model not in self._holdings:
                raise GivenBack(f"this worker does not hold the model {spec.model!r}")
            if reason := self._residency.refusals.reason(spec.model):
                raise not_loaded(spec.model, reason)
            if not self._inbox.put(order):
                raise ServerBusy(
                    f"{self._inbox.max_waiting} pictures wait for this worker already",
                    hint="another attempt will find room",
                )
        return order.future

    def close(self, timeout_seconds: float = CLOSE_TIMEOUT_SECONDS) -> bool:
        """Ends the pictures in flight between two steps and drops the rest.

        True when its threads are gone; one inside a long step, or one that loads a model, may
        need more time.
        """
        until = time.monotonic() + timeout_seconds
        self._refuse_all()
        self._inbox.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        is_gone = self._residency.close(max(0.0, until - time.monotonic()))
        return is_gone and not self._thread.is_alive()

    def _refuse_all(self) -> None:
        with self._entrance:
            self._closing.set()
        for order in self._inbox.take_all():
            order.future.cancel()

    # ------------------------------------------------------------ the engine's thread

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - a defect of ours, and somebody waits
            _log.debug("the engine ended", exc_info=True)
            self._break(f"the engine ended with {type(error).__name__}: {error}")
        reason = _out_of_order(self.broken) if self.broken else Cancelled("the worker is stopping")
        if not self._ready.done():
            self._ready.set_exception(reason)
        for resident in self._residency.residents:
            resident.turns.abandon(reason)

    def _work(self) -> None:
        self._residency.load_next()
        while not self._closing.is_set():
            self._receive()
            self._begin()
            is_waited_for = self._residency.change(self._inbox)
            if not self._turn():
                self._inbox.wait(self._residency.sleep_seconds(is_waited_for))

    def _receive(self) -> None:
        """What has been loaded, or why it has not."""
        loaded = self._residency.receive()
        if loaded is None or loaded.holding is None:
            return
        if loaded.error is None:
            self._welcome(loaded.holding)
        elif not self._ready.done() and not self._residency.load_next():
            self._refuse_all()
            self._ready.set_exception(_load_failure(loaded.error))

    def _welcome(self, holding: Holding) -> None:
        resident = self._residency.residents[holding.model_id]
        if holding.model_id in self._unproven:
            self._unproven.discard(holding.model_id)
            if fault := self._prove(resident):
                self._break(fault, holding.model_id)
                return
        if not self._ready.done():
            self._ready.set_result(None)

    def _begin(self) -> None:
        """Takes in what may begin now."""
        for resident in self._residency.residents:
            if not resident.must_leave:
                self._begin_of(resident)

    def _begin_of(self, resident: Resident) -> None:
        turns = resident.turns
        while not self._closing.is_set():
            waiting = self._inbox.waiting(resident.model_id)
            order = resident.line.next(waiting, turns.has_room, time.monotonic())
            if order is None:
                return
            if self._inbox.take(order):
                self._settle(resident, turns.begin(order))

    def _turn(self) -> bool:
        """Of whoever is next. False when there is nothing to do."""
        resident = self._residency.residents.next_turn()
        if resident is None:
            return False
        began = time.perf_counter()
        faults = resident.turns.turn()
        self._residency.residents.spent(resident, time.perf_counter() - began)
        self._settle(resident, faults)
        return True

    def _note_change(self) -> None:
        here = [one.pipeline.capacity.pictures for one in self._residency.residents]
        self.at_once = max(here, default=self.at_once)
        self._on_change()

    def _make_turns(self, pipeline: Pipeline) -> Turns:
        return Turns(
            pipeline,
            is_closing=self._closing.is_set,
            on_drawn=self._measure,
            has_neighbours=self._residency.is_shared,
        )

    def _settle(self, resident: Resident, faults: Faults) -> None:
        """Tells those whose pictures came to nothing, after a look at whose fault it is."""
        if not faults:
            return
        doubt = any(is_suspicious(error) for _, error in faults)
        broken = self._prove(resident) if doubt else ""
        if broken:
            self._break(broken, resident.model_id)
        for picture, error in faults:
            blameless = broken and is_suspicious(error)
            picture.fail(_out_of_order(broken) if blameless else error)

    def _prove(self, resident: Resident) -> str:
        """Draws the model's canary: what is wrong with it, or nothing. Given up when we are
        closing. What is in flight waits meanwhile, other models' pictures too: one device.
        """
        holding = resident.holding
        if holding.canary is None:
            return ""
        return prove(resident.pipeline, holding.canary, self._check_open, holding.golden)

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the worker is stopping")

    def _break(self, fault: str, model_id: str = "") -> None:
        self.broken_model, self.broken = model_id or next(iter(self._holdings)), fault
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
