"""Models come and go in a thread beside the engine's, and what has gone is gone."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from sdq.testing.pipeline import FakePipeline, held
from sdq.testing.stepping import SteppingFake
from sdq.worker.flight import Pipeline
from sdq.worker.holding import Holding
from sdq.worker.loader import Loaded, Loader
from sdq.worker.whole import Whole

WAIT_SECONDS = 10.0


class Bench:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.loader = Loader(self.done.set)

    def after(self, coming: Holding | None, *leaving: tuple[Holding, Pipeline]) -> Loaded:
        return self.let_go(list(leaving), coming)

    def let_go(self, leaving: list[tuple[Holding, Pipeline]], coming: Holding | None) -> Loaded:
        self.done.clear()
        self.loader.begin(leaving, coming)
        assert self.loader.is_busy
        assert self.done.wait(WAIT_SECONDS)
        loaded = self.loader.take()
        assert loaded is not None
        assert not self.loader.is_busy
        return loaded


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    assert bench.loader.close(WAIT_SECONDS)


def test_loading(bench: Bench) -> None:
    pipeline = SteppingFake()
    loaded = bench.after(held(pipeline))
    assert loaded.pipeline is pipeline
    assert loaded.error is None
    assert loaded.seconds >= 0
    assert bench.loader.take() is None
    assert isinstance(bench.after(held(FakePipeline())).pipeline, Whole)  # it takes turns now


def test_a_load_that_fails_is_told(bench: Bench) -> None:
    def load() -> Pipeline:
        raise OSError("no such file")

    loaded = bench.after(Holding("shapes", load))
    assert loaded.pipeline is None
    assert isinstance(loaded.error, OSError)
    assert bench.after(held(SteppingFake())).error is None


def test_a_panic_is_told_too(bench: Bench) -> None:
    """What a library in Rust raises is no `Exception`; nobody waits for ever for all that."""

    class PanicException(BaseException):
        pass

    def load() -> Pipeline:
        raise PanicException("unwrap on None")

    loaded = bench.after(Holding("shapes", load))
    assert isinstance(loaded.error, RuntimeError)
    assert str(loaded.error) == "PanicException: unwrap on None"


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Whoever wants what is in a circle to be gone must see to it."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_gc")
def test_what_leaves_is_gone_before_anything_comes(bench: Bench) -> None:
    there: list[bool] = []
    pipeline = SteppingFake()
    pipeline.itself = pipeline  # type: ignore[attr-defined]  # as a model's parts refer to it
    gone = weakref.ref(pipeline)
    order: list[str] = []

    def look(name: str) -> Callable[[], SteppingFake]:
        def act() -> SteppingFake:
            order.append(name)
            there.append(gone() is not None)
            return SteppingFake()

        return act

    leaving: list[tuple[Holding, Pipeline]] = [
        (Holding("old", SteppingFake, release=lambda: order.append("release")), pipeline)
    ]
    del pipeline
    bench.let_go(leaving, Holding("new", look("load")))
    assert order == ["release", "load"]
    assert there == [False]


def test_a_release_that_fails_keeps_nobody_out(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def release() -> None:
        raise RuntimeError("device-side assert")

    old = Holding("old", SteppingFake, release=release)
    assert bench.after(None, (old, SteppingFake())) == Loaded()
    assert "old left memory, but not all of it: device-side assert" in caplog.text


def test_closing_does_not_wait_for_ever(bench: Bench) -> None:
    gate = threading.Event()

    def load() -> Pipeline:
        assert gate.wait(WAIT_SECONDS)
        return SteppingFake()

    bench.loader.begin([], Holding("slow", load))
    assert bench.loader.take() is None
    assert not bench.loader.close(0.01)
    gate.set()
    assert bench.loader.close(WAIT_SECONDS)
