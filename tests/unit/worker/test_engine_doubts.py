"""The engine doubts itself: a canary after a picture that is none, and before the first job."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from PIL import Image

from sdq.errors import Cancelled, GenerationFailed, OutOfMemory, ServerBusy
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, held
from sdq.worker import golden
from sdq.worker.engine import Engine, GivenBack, NoPicture, Pipeline

WAIT_SECONDS = 10.0


@pytest.fixture
def canary(manifest: ModelManifest) -> ImageSpec:
    return canary_spec(manifest)


@contextmanager
def doubting(pipeline: Pipeline, canary: ImageSpec, **options: Any) -> Iterator[Engine]:
    engine = Engine([held(pipeline, canary)], **options)
    engine.start()
    yield engine
    assert engine.close()


def submit(engine: Engine, spec: ImageSpec) -> Any:
    return engine.submit(spec, on_step=lambda step, steps: None, is_cancelled=lambda: False)


@pytest.mark.parametrize(
    ("switch", "error"),
    [("nan_on", NoPicture), ("black_on", NoPicture), ("fail_on", RuntimeError)],
)
def test_a_canary_that_lives_lets_the_picture_keep_its_fault(
    spec: ImageSpec, canary: ImageSpec, switch: str, error: type[Exception]
) -> None:
    pipeline = FakePipeline(**{switch: "cat"})  # type: ignore[arg-type]
    with doubting(pipeline, canary) as engine:
        with pytest.raises(error):
            submit(engine, spec).result(WAIT_SECONDS)
        assert pipeline.drawn == [spec, canary]
        assert engine.broken == ""
        dog = msgspec.structs.replace(spec, prompt="a dog")
        assert submit(engine, dog).result(WAIT_SECONDS).image


class Raising(FakePipeline):
    """Ends each picture with the same error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Any:
        self.drawn.append(spec)
        raise self.error


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (MemoryError("full"), OutOfMemory),
        (GenerationFailed("the safety checker held it back"), GenerationFailed),
    ],
)
def test_some_ends_cast_no_doubt(
    spec: ImageSpec, canary: ImageSpec, raised: Exception, caught: type[Exception]
) -> None:
    pipeline = Raising(raised)
    with doubting(pipeline, canary) as engine:
        with pytest.raises(caught):
            submit(engine, spec).result(WAIT_SECONDS)
        assert pipeline.drawn == [spec]


def test_cancelling_casts_no_doubt(spec: ImageSpec, canary: ImageSpec) -> None:
    pipeline = FakePipeline()
    with doubting(pipeline, canary) as engine:
        steps: list[int] = []
        future = engine.submit(
            spec, on_step=lambda step, _: steps.append(step), is_cancelled=lambda: len(steps) > 1
        )
        with pytest.raises(Cancelled):
            future.result(WAIT_SECONDS)
        assert pipeline.drawn == [spec]


def test_a_canary_that_fails_breaks_the_engine(spec: ImageSpec, canary: ImageSpec) -> None:
    told: list[str] = []
    pipeline = FakePipeline(0.01, break_after=2)
    with doubting(pipeline, canary, on_broken=told.append) as engine:
        first, second, third = (submit(engine, spec) for _ in range(3))
        assert first.result(WAIT_SECONDS).image
        with pytest.raises(GivenBack, match=r"broken.*NaN"):
            second.result(WAIT_SECONDS)
        with pytest.raises(CancelledError):
            third.result(WAIT_SECONDS)
        with pytest.raises(GivenBack, match="broken"):
            submit(engine, spec)
        assert pipeline.drawn == [spec, spec, canary]
        assert told == [engine.broken]
        assert "NaN" in engine.broken


class Flat(FakePipeline):
    """Draws, but always the same grey."""

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Any:
        self.drawn.append(spec)
        if len(self.drawn) == 1:
            raise RuntimeError("device-side assert")
        return Image.new("RGB", (spec.width, spec.height), (90, 90, 90))


def test_a_canary_of_one_colour_is_none(spec: ImageSpec, canary: ImageSpec) -> None:
    with doubting(Flat(), canary) as engine, pytest.raises(GivenBack, match="flat colour"):
        submit(engine, spec).result(WAIT_SECONDS)


def test_a_canary_that_ends_in_any_error(spec: ImageSpec, canary: ImageSpec) -> None:
    with (
        doubting(Raising(RuntimeError("device-side assert")), canary) as engine,
        pytest.raises(GivenBack, match="RuntimeError: device-side assert"),
    ):
        submit(engine, spec).result(WAIT_SECONDS)


def test_proving_first(spec: ImageSpec, canary: ImageSpec) -> None:
    pipeline = FakePipeline()
    with doubting(pipeline, canary, prove_first=True) as engine:
        engine.wait_ready(WAIT_SECONDS)
        assert pipeline.drawn == [canary]
        assert submit(engine, spec).result(WAIT_SECONDS).image


def test_proving_first_in_vain(spec: ImageSpec, canary: ImageSpec) -> None:
    told: list[str] = []
    with doubting(
        FakePipeline(0.1, break_after=1), canary, prove_first=True, on_broken=told.append
    ) as engine:
        waiting = submit(engine, spec)
        with pytest.raises(GivenBack, match="NaN"):
            engine.wait_ready(WAIT_SECONDS)
        with pytest.raises(CancelledError):
            waiting.result(WAIT_SECONDS)
        assert len(told) == 1


def test_closing_does_not_wait_for_a_canary_and_does_not_believe_it(
    spec: ImageSpec, canary: ImageSpec
) -> None:
    pipeline = FakePipeline(0.1, fail_on="cat")
    engine = Engine([held(pipeline, canary)])
    engine.start()
    future = submit(engine, spec)
    while len(pipeline.drawn) < 2:
        assert not future.done()
    assert engine.close()
    with pytest.raises(RuntimeError, match="told to fail"):
        future.result(0)
    assert engine.broken == ""
    with pytest.raises(ServerBusy):
        submit(engine, spec)


def test_a_worker_that_draws_another_picture_than_the_golden_one_takes_no_job(
    spec: ImageSpec, canary: ImageSpec
) -> None:
    told: list[str] = []
    pipeline = FakePipeline()
    white = golden.encoded(Image.new("RGB", (canary.width, canary.height), "white"))
    holding = dataclasses.replace(held(pipeline, canary), golden=white)
    engine = Engine([holding], prove_first=True, on_broken=told.append)
    waiting = submit(engine, spec)
    engine.start()
    with pytest.raises(GivenBack, match="golden one: they differ by"):
        engine.wait_ready(WAIT_SECONDS)
    with pytest.raises(CancelledError):
        waiting.result(WAIT_SECONDS)
    with pytest.raises(GivenBack, match="broken"):
        submit(engine, spec)
    assert pipeline.drawn == [canary]
    assert told == [engine.broken]
    assert engine.close()
