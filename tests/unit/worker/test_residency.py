"""Models that come and go for the engine's thread; the real ones leave nothing behind."""

import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from sdq.errors import ModelError
from sdq.spec import ImageSpec
from sdq.testing.stepping import SteppingFake
from sdq.testing.tiny_models import tiny_pipeline
from sdq.worker.devices import Device
from sdq.worker.engine import Engine, GivenBack
from sdq.worker.flight import Drawer, Pipeline
from sdq.worker.holding import Holding
from sdq.worker.inbox import Inbox
from sdq.worker.picture import Order
from sdq.worker.residency import LOOK_AGAIN_SECONDS, Residency
from sdq.worker.residents import Residents
from sdq.worker.stepping import engine_pipeline
from sdq.worker.turns import Turns

Wait = Callable[[Callable[[], object]], None]
WAIT_SECONDS = 60.0
CPU = Device(name="cpu", dtype="float32", label="cpu")


class Desk:
    """A residency by hand: two models, of which one fits."""

    def __init__(self, spec: ImageSpec) -> None:
        self.spec, self.inbox = spec, Inbox(10)
        self.errors: dict[str, Exception] = {}
        self.told = 0
        self.holdings = [
            Holding(name, lambda name=name: self._load(name), needs_bytes=6)  # type: ignore[misc]
            for name in "ab"
        ]
        self.residency = Residency(
            self.holdings,
            Residents(self.holdings, budget_bytes=10, patience_seconds=3.0),
            make_turns=self._make_turns,
            on_done=self.inbox.wake,
            on_change=self._tell,
        )

    def _load(self, name: str) -> SteppingFake:
        if name in self.errors:
            raise self.errors[name]
        return SteppingFake()

    @staticmethod
    def _make_turns(pipeline: Pipeline) -> Turns:
        return Turns(pipeline, is_closing=lambda: False, on_drawn=lambda seconds: None)

    def _tell(self) -> None:
        self.told += 1

    def load_first(self) -> None:
        assert self.residency.load_next()
        self.receive()

    def receive(self) -> None:
        self.inbox.wait(WAIT_SECONDS)
        assert self.residency.receive() is not None

    def order(self, model_id: str) -> Order:
        spec = msgspec.structs.replace(self.spec, model=model_id)
        order = Order(spec, lambda *_: None, lambda: False, Future())
        assert self.inbox.put(order)
        self.inbox.wait(None)
        return order


@pytest.fixture
def desk(spec: ImageSpec) -> Iterator[Desk]:
    desk = Desk(spec)
    yield desk
    assert desk.residency.close(WAIT_SECONDS)


def test_a_model_comes_when_it_is_waited_for(desk: Desk) -> None:
    assert desk.residency.receive() is None
    desk.load_first()
    assert desk.residency.residents.loaded == desk.residency.serving == ("a",)
    assert not desk.residency.change(desk.inbox)
    assert desk.residency.sleep_seconds(False) is None
    assert not desk.residency.is_shared()
    desk.order("b")
    assert not desk.residency.change(desk.inbox)  # nothing is waited for: it is coming
    assert desk.residency.is_shared()
    assert desk.residency.serving == ("b",)
    assert not desk.residency.change(desk.inbox)  # one change at a time
    assert desk.residency.sleep_seconds(True) is None  # its end arrives
    desk.receive()
    assert desk.residency.residents.loaded == ("b",)
    assert desk.told == 4


def test_one_that_works_is_waited_for(desk: Desk) -> None:
    desk.load_first()
    working = desk.order("a")
    desk.inbox.take(working)
    assert desk.residency.residents["a"].turns.begin(working) == []
    desk.order("b")
    assert desk.residency.change(desk.inbox)
    assert desk.residency.sleep_seconds(True) == LOOK_AGAIN_SECONDS


def test_what_waits_for_a_model_that_failed_is_given_back(desk: Desk) -> None:
    desk.load_first()
    desk.errors["b"] = ModelError("no such file")
    first = desk.order("b")
    desk.residency.change(desk.inbox)
    desk.receive()
    assert not first.future.done()
    desk.residency.change(desk.inbox)
    assert isinstance(first.future.exception(0), GivenBack)
    taken_back = desk.order("b")
    taken_back.future.cancel()
    desk.residency.change(desk.inbox)
    assert desk.residency.residents.loaded == ()  # it had to leave before b could fail


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_a_real_model_leaves_memory(spec: ImageSpec, wait_for: Wait, layout: Any) -> None:
    parts: list[weakref.ref[Any]] = []

    def load() -> Pipeline | Drawer:
        loaded = tiny_pipeline(layout)
        parts.extend(weakref.ref(part) for part in (loaded, loaded.unet, loaded.vae))
        return engine_pipeline(loaded, CPU)

    holdings = [
        Holding("real", load, needs_bytes=6),
        Holding("shapes", SteppingFake, needs_bytes=6),
    ]
    engine = Engine(holdings, budget_bytes=10)
    engine.start()

    def draw(model_id: str) -> None:
        engine.submit(
            msgspec.structs.replace(spec, model=model_id, width=64, height=64),
            on_step=lambda step, steps: None,
            is_cancelled=lambda: False,
            wants_preview=lambda: True,
        ).result(WAIT_SECONDS)

    draw("real")
    assert all(part() is not None for part in parts)
    draw("shapes")
    assert engine.loaded == ("shapes",)
    wait_for(lambda: all(part() is None for part in parts))
    draw("real")
    assert engine.close()
