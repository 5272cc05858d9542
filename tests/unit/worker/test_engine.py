"""One thread draws; cancelling, failing and closing leave nobody waiting."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from sdq.errors import Cancelled, ModelError, OutOfMemory, ServerBusy
from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, held, picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker.engine import Engine, GivenBack, NoPicture, Pipeline
from sdq.worker.flight import Flight, OnStep
from sdq.worker.holding import Holding

WAIT_SECONDS = 10.0


@contextmanager
def running(
    pipeline: Pipeline, canary: ImageSpec | None = None, **options: Any
) -> Iterator[Engine]:
    engine = Engine([held(pipeline, canary)], **options)
    engine.start()
    engine.wait_ready(WAIT_SECONDS)
    try:
        yield engine
    finally:
        assert engine.close()


def submit(engine: Engine, spec: ImageSpec, **options: Any) -> Any:
    options = {"on_step": lambda step, steps: None, "is_cancelled": lambda: False} | options
    return engine.submit(spec, **options)


class Gate(FakePipeline):
    """Stops before the last step until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Any:
        self.reached.set()
        assert self.opened.wait(WAIT_SECONDS)
        return super().draw(spec, on_step)


def test_a_picture_with_its_steps(spec: ImageSpec) -> None:
    steps: list[tuple[int, int]] = []
    with running(FakePipeline()) as engine:
        assert engine.seconds_per_step is None
        drawn = submit(engine, spec, on_step=lambda *step: steps.append(step)).result(WAIT_SECONDS)
        assert engine.seconds_per_step is not None
    assert drawn.image.tobytes() == picture_of(spec).tobytes()
    assert drawn.draw_seconds >= 0
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_all_is_drawn_by_one_thread_and_another_one_loads(spec: ImageSpec) -> None:
    threads: set[str] = set()
    loaders: list[str] = []

    def load() -> Pipeline:
        loaders.append(threading.current_thread().name)
        return FakePipeline()

    engine = Engine([Holding("shapes", load)])
    engine.start()
    futures = [
        submit(engine, spec, on_step=lambda *_: threads.add(threading.current_thread().name))
        for _ in range(3)
    ]
    for future in futures:
        future.result(WAIT_SECONDS)
    assert engine.close()
    assert threads == {"sdq-engine"}
    assert loaders == ["sdq-loader"]


def test_cancelled_between_two_steps(spec: ImageSpec) -> None:
    steps: list[int] = []
    with running(FakePipeline()) as engine:
        future = submit(
            engine,
            spec,
            on_step=lambda step, _: steps.append(step),
            is_cancelled=lambda: len(steps) >= 2,
        )
        with pytest.raises(Cancelled):
            future.result(WAIT_SECONDS)
        assert steps == [0, 1]
        assert submit(engine, spec).result(WAIT_SECONDS).image  # and it goes on


def test_cancelled_before_it_is_begun(spec: ImageSpec) -> None:
    pipeline = FakePipeline()
    with running(pipeline) as engine, pytest.raises(Cancelled):
        submit(engine, spec, is_cancelled=lambda: True).result(WAIT_SECONDS)
    assert pipeline.drawn == []


@pytest.mark.parametrize(
    ("switch", "error", "text"),
    [
        ("fail_on", RuntimeError, "told to fail"),
        ("out_of_memory_on", OutOfMemory, "not enough memory to draw 64x48: the fake device"),
        ("nan_on", NoPicture, "NaN"),
        ("black_on", NoPicture, "all black"),
    ],
)
def test_failures_are_told_apart(
    spec: ImageSpec, switch: str, error: type[Exception], text: str
) -> None:
    with running(FakePipeline(**{switch: "cat"})) as engine:  # type: ignore[arg-type]
        future = submit(engine, spec)
        with pytest.raises(error, match=text):
            future.result(WAIT_SECONDS)
        assert engine.seconds_per_step is None


def test_a_picture_is_begun_when_the_engine_comes_to_it(spec: ImageSpec) -> None:
    gate = Gate()
    begun: list[int] = []
    with running(gate) as engine:
        first = submit(engine, spec, on_step=lambda step, _: begun.append(1) if not step else None)
        second = submit(engine, spec, on_step=lambda step, _: begun.append(2) if not step else None)
        assert gate.reached.wait(WAIT_SECONDS)
        assert begun == [1]
        gate.opened.set()
        first.result(WAIT_SECONDS)
        second.result(WAIT_SECONDS)
    assert begun == [1, 2]


def test_the_inbox_is_bounded(spec: ImageSpec) -> None:
    gate = Gate()
    with running(gate, max_waiting=2) as engine:
        first = submit(engine, spec)
        assert gate.reached.wait(WAIT_SECONDS)
        waiting = [submit(engine, spec) for _ in range(2)]
        with pytest.raises(ServerBusy):
            submit(engine, spec)
        gate.opened.set()
        for future in (first, *waiting):
            assert future.result(WAIT_SECONDS)


def test_what_waits_can_be_taken_back(spec: ImageSpec) -> None:
    gate = Gate()
    with running(gate) as engine:
        first = submit(engine, spec)
        assert gate.reached.wait(WAIT_SECONDS)
        second = submit(engine, spec)
        assert second.cancel()
        gate.opened.set()
        first.result(WAIT_SECONDS)
    assert len(gate.drawn) == 1


def test_closing_ends_the_picture_in_hand_and_those_that_wait(spec: ImageSpec) -> None:
    pipeline = FakePipeline(seconds_per_step=0.05)
    engine = Engine([held(pipeline)])
    engine.start()
    begun = threading.Event()
    first = submit(engine, spec, on_step=lambda step, _: begun.set() if step else None)
    second = submit(engine, spec)
    assert begun.wait(WAIT_SECONDS)
    assert engine.close()
    with pytest.raises(Cancelled):
        first.result(0)
    with pytest.raises(CancelledError):
        second.result(0)
    with pytest.raises(ServerBusy, match="stopping"):
        submit(engine, spec)


def test_closing_does_not_wait_for_a_step_that_hangs(spec: ImageSpec) -> None:
    gate = Gate()
    engine = Engine([held(gate)])
    engine.start()
    submit(engine, spec)
    assert gate.reached.wait(WAIT_SECONDS)
    assert not engine.close(timeout_seconds=0.02)
    gate.opened.set()
    assert engine.close()


@pytest.mark.parametrize("error", [ModelError("no such file"), RuntimeError("no such file")])
def test_a_model_that_cannot_be_loaded(spec: ImageSpec, error: Exception) -> None:
    def load() -> Pipeline:
        raise error

    engine = Engine([Holding("shapes", load)])
    engine.start()
    with pytest.raises(ModelError, match="no such file"):
        engine.wait_ready(WAIT_SECONDS)
    with pytest.raises(ServerBusy):
        submit(engine, spec)
    assert engine.close()


def test_the_speed_is_a_mean_that_forgets(spec: ImageSpec) -> None:
    pipeline = FakePipeline()
    with running(pipeline) as engine:
        engine.seconds_per_step = 1.0
        submit(engine, spec).result(WAIT_SECONDS)
        assert engine.seconds_per_step == pytest.approx(0.7, abs=0.05)


def test_a_tokenizer_s_panic_ends_one_picture_and_not_the_thread(spec: ImageSpec) -> None:
    class PanicException(BaseException):
        """As those that libraries in Rust raise: no `Exception`."""

    class Panicking(SteppingFake):
        def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
            if spec.prompt == "panic":
                raise PanicException("bad split")
            return super().begin(spec, on_step)

    with running(Panicking(), spec) as engine:
        bad = submit(engine, msgspec.structs.replace(spec, prompt="panic"))
        with pytest.raises(RuntimeError, match="PanicException: bad split"):
            bad.result(WAIT_SECONDS)
        assert submit(engine, spec).result(WAIT_SECONDS)
        assert engine.broken == ""


def test_a_defect_of_the_engine_leaves_nobody_waiting(spec: ImageSpec) -> None:
    class Defective(SteppingFake):
        def joins(self, spec: ImageSpec, others: Sequence[Flight]) -> bool:
            raise KeyError("a defect")

    told: list[str] = []
    pipeline = Defective()
    with running(pipeline, on_broken=told.append) as engine:
        future = submit(engine, spec)
        with pytest.raises(CancelledError):
            future.result(WAIT_SECONDS)
        with pytest.raises(GivenBack, match="broken"):
            submit(engine, spec)
        assert engine.broken_model == "shapes"
        assert told == [engine.broken]
        assert "KeyError" in engine.broken
