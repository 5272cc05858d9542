"""A model on trial: its proof picture, its turns, its memory. The pipelines are fakes."""

import math
import time
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker import active_set, golden, memory, trial
from sdq.worker.devices import Device
from sdq.worker.flight import Capacity, Drawer, Flight, OnStep, Pipeline
from sdq.worker.trial import Loaded, Trial
from sdq.worker.whole import as_pipeline

CPU = Device(name="cpu", dtype="float32", label="cpu (fake)")
MUCH = Capacity(active_set.MOST_PICTURES, 10**9)


@pytest.fixture(autouse=True)
def fakes_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no work: they are timed by the clock on the wall."""
    monkeypatch.setattr(trial, "work_clock_of", lambda device: None)


def on_trial(
    pipeline: Pipeline | Drawer, spec: ImageSpec, news: list[tuple[str, int]] | None = None
) -> Trial:
    loaded = Loaded(as_pipeline(pipeline), "none", 1_000)
    told = [] if news is None else news
    return Trial(lambda device: loaded, CPU, spec, lambda phase, count: told.append((phase, count)))


def no_hurry() -> float:
    return math.inf


def test_a_quick_device_draws_the_whole_proof(spec: ImageSpec) -> None:
    fake = SteppingFake(capacity=MUCH)
    news: list[tuple[str, int]] = []
    tried = on_trial(fake, spec, news)
    tried.prove()
    found = tried.findings()
    assert [drawn.num_inference_steps for drawn in fake.drawn] == [2, 4]
    assert found.proof == spec
    assert found.picture.tobytes() == picture_of(spec).tobytes()
    assert found.proof_seconds > 0
    assert set(found.turn_seconds) == {1}
    assert found.is_cut  # nothing was tried but one
    assert (found.offload, found.weights_bytes) == ("none", 1_000)
    assert news == [("load", 1), ("canary", 1), ("canary", 1)]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_slow_device_draws_few_steps(
    spec: ImageSpec, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "PROOF_SECONDS", 0.02)
    spec = ImageSpec(**{**_fields(spec), "num_inference_steps": steps})
    fake = SteppingFake(seconds_per_turn=0.01)
    tried = on_trial(fake, spec)
    tried.prove()
    assert [drawn.num_inference_steps for drawn in fake.drawn] == [min(2, steps)]
    assert tried.findings().proof.num_inference_steps == min(2, steps)


def _fields(spec: ImageSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"nan_on": "cat"}, GenerationFailed),
        ({"black_on": "cat"}, GenerationFailed),
        ({"out_of_memory_on": "cat"}, MemoryError),
        ({"fail_on": "cat"}, RuntimeError),
    ],
)
@pytest.mark.parametrize("kind", [SteppingFake, FakePipeline])
def test_a_proof_that_is_none(
    spec: ImageSpec, kind: type[FakePipeline], options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        on_trial(kind(**options), spec).prove()  # type: ignore[arg-type]


def test_a_picture_of_another_size_is_no_proof(
    spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakePipeline()
    monkeypatch.setattr(fake, "finished", lambda spec: Image.new("RGB", (8, 8)))
    with pytest.raises(GenerationFailed, match="8x8 instead of 64x48"):
        on_trial(fake, spec).prove()


def test_turns_are_timed_with_pictures_of_their_own(spec: ImageSpec) -> None:
    fake = SteppingFake(seconds_per_turn=0.001, capacity=Capacity(8, 10**9))
    news: list[tuple[str, int]] = []
    tried = on_trial(fake, spec, news)
    tried.prove()
    tried.measure(no_hurry)
    found = tried.findings()
    assert set(found.turn_seconds) == {1, 2, 4, 8}
    assert found.turn_seconds[1] >= 0.001
    assert not found.is_cut
    assert [count for phase, count in news if phase == "measure"] == [1, 2, 4, 8]
    assert max(map(len, fake.turns)) == 8
    assert all(len({seed for seed, _ in turn}) == len(turn) for turn in fake.turns)


def test_pictures_that_end_make_room_for_others_outside_of_the_time(spec: ImageSpec) -> None:
    """Models of one step, whose beginning takes longer than the step."""
    fake = SlowBeginner(capacity=MUCH)
    tried = on_trial(fake, ImageSpec(**{**_fields(spec), "num_inference_steps": 1}))
    tried.prove()
    tried.measure(no_hurry, most=2)
    found = tried.findings()
    assert set(found.turn_seconds) == {1, 2}
    assert found.turn_seconds[2] < SlowBeginner.BEGIN_SECONDS


class SlowBeginner(SteppingFake):
    BEGIN_SECONDS = 0.02

    def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
        time.sleep(self.BEGIN_SECONDS)
        return super().begin(spec, on_step)


def test_a_pipeline_that_draws_alone_is_not_asked_for_more(spec: ImageSpec) -> None:
    """Its turn is a whole picture; what is told of it is a step."""
    fake = FakePipeline(seconds_per_step=0.01)
    tried = on_trial(fake, spec)
    tried.prove()
    tried.measure(no_hurry)
    tried.decode_together()
    found = tried.findings()
    assert found.proof == spec
    assert set(found.turn_seconds) == {1}
    assert 0.01 <= found.turn_seconds[1] < found.proof_seconds / 2
    assert not found.is_cut


def test_without_time_the_proof_has_to_do(spec: ImageSpec) -> None:
    tried = on_trial(SteppingFake(capacity=MUCH), spec)
    tried.prove()
    tried.measure(lambda: 0.0)
    assert set(tried.findings().turn_seconds) == {1}
    assert tried.findings().is_cut


def test_as_many_are_decoded_together_as_in_earnest(spec: ImageSpec) -> None:
    fake = SteppingFake(capacity=MUCH)
    tried = on_trial(fake, spec)
    tried.prove()
    tried.decode_together()
    assert max(map(len, fake.decoded)) == 1  # nothing says that two at once pay
    tried.measure(no_hurry, most=4)
    tried.decode_together()
    assert len(fake.decoded[-1]) == 2  # as `decode_capacity_of` the CPU


class Gauge:
    """Stands where a device counts its memory: this much is in use, always."""

    def __init__(self, in_use_bytes: int | None) -> None:
        self.peak_bytes = in_use_bytes

    def __call__(self, device_name: str) -> "Gauge":
        return self

    def __enter__(self) -> "Gauge":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_what_would_not_fit_is_not_tried(spec: ImageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture of a turn takes a hundred beside the weights, and eight hundred may be taken."""
    gauge = Gauge(5_000)
    monkeypatch.setattr(memory, "Peak", gauge)
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: 1_000)
    fake = SteppingFake(capacity=MUCH)

    def step(flights: Sequence[Flight]) -> list[Exception | None]:
        gauge.peak_bytes = 5_000 + 100 * len(flights)
        return SteppingFake.step(fake, flights)

    monkeypatch.setattr(fake, "step", step)
    tried = on_trial(fake, spec)
    tried.prove()
    tried.measure(no_hurry)
    found = tried.findings()
    assert max(found.turn_seconds) == 8
    assert not found.is_cut
    assert found.peak_bytes == 1_000 + 800  # on a CPU: the weights, and what eight took


def test_where_nobody_can_say_the_device_itself_does(
    spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "Peak", Gauge(None))
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: None)
    tried = on_trial(SteppingFake(capacity=MUCH, fits_pixels=8 * 64 * 48), spec)
    tried.prove()
    tried.measure(no_hurry)
    found = tried.findings()
    assert set(found.turn_seconds) == {1, 2, 4}  # sixteen are out of memory, eight are at its edge
    assert found.peak_bytes == 0


def test_a_proof_of_few_steps_is_not_compared_with_the_golden_picture(
    spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    white = golden.encoded(Image.new("RGB", (spec.width, spec.height), "white"))
    loaded = Loaded(as_pipeline(SteppingFake(seconds_per_turn=0.01)), "none", 1_000)

    def tried() -> Trial:
        return Trial(lambda device: loaded, CPU, spec, lambda phase, count: None, white)

    with pytest.raises(GenerationFailed, match="another picture than the golden one"):
        tried().prove()
    monkeypatch.setattr(trial, "PROOF_SECONDS", 0.001)
    slow = tried()
    slow.prove()
    assert slow.findings().proof.num_inference_steps == 2
