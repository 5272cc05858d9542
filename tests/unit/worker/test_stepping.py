"""One turn of the real pipeline: rows, faults, full memory; and what is not stepped at all."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec
from sdq.testing.tiny_models import Layout, tiny_pipeline
from sdq.worker.devices import CPU_CAPACITY, Device
from sdq.worker.drawing import DiffusersPipeline
from sdq.worker.flight import Capacity
from sdq.worker.latents import LatentFlight
from sdq.worker.pipelines import SCHEDULERS
from sdq.worker.stepping import SteppingPipeline, engine_pipeline

# diffusers' schedulers hand torch's arrays to a numpy that has news for them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = Device(name="cpu", dtype="float32", label="cpu")


class Watched(SteppingPipeline):
    """Knows the rows of each call of the UNet, and lets them fail."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(tiny_pipeline(layout), CPU)
        self.rows: list[int] = []
        self.before: Callable[[int], None] = lambda rows: None
        forward = self.pipeline.unet.forward

        def watched(latents: torch.Tensor, *arguments: Any, **named: Any) -> Any:
            self.before(len(latents))
            self.rows.append(len(latents))
            return forward(latents, *arguments, **named)

        self.pipeline.unet.forward = watched

    def flights(self, *specs: ImageSpec) -> list[LatentFlight]:
        found = [self.begin(spec, lambda step, steps: None) for spec in specs]
        return [flight for flight in found if isinstance(flight, LatentFlight)]


def changed(spec: ImageSpec, **changes: Any) -> ImageSpec:
    return msgspec.structs.replace(spec, **changes)


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_the_unconditional_half_is_there_for_those_with_guidance(
    spec: ImageSpec, layout: Layout
) -> None:
    pipeline = Watched(layout)
    scales = (4.0, 1.0, 0.0, 7.5)
    flights = pipeline.flights(*(changed(spec, guidance_scale=scale) for scale in scales))
    assert pipeline.step(flights) == [None] * 4
    pipeline.step(flights[1:3])
    assert pipeline.rows == [6, 2]


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_attention_is_torchs_own_fused_one(
    spec: ImageSpec, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps no table of all pixels by all pixels, so memory and time do not grow with it."""
    calls: list[int] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def counted(query: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(len(query))
        return fused(query, *arguments, **named)

    pipeline = Watched(layout)
    flights = pipeline.flights(spec, spec)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    pipeline.step(flights)
    assert calls == [4] * len(pipeline.pipeline.unet.attn_processors)
    assert calls
    calls.clear()
    pipeline.decode(flights)
    assert calls == [2]  # the decoder's only one


def test_sizes_make_groups(spec: ImageSpec) -> None:
    pipeline = Watched("sd1")
    one, same, other = pipeline.flights(
        spec, changed(spec, prompt="b", scheduler="lcm", seed=2), changed(spec, width=48, height=64)
    )
    assert one.group == same.group != other.group


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_steps_are_counted_as_people_do(spec: ImageSpec, scheduler: str) -> None:
    pipeline = Watched("sd1")
    (flight,) = pipeline.flights(changed(spec, scheduler=scheduler))
    counted = []
    while not flight.is_finished:
        pipeline.step([flight])
        counted.append(flight.step)
    assert counted[-1] == 4
    assert counted == sorted(counted)
    assert len(counted) == {"heun": 7, "pndm": 5}.get(scheduler, 4)
    assert pipeline.step([flight]) == [None]  # left alone
    assert len(pipeline.rows) == len(counted)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_loads_beside_it_changes_no_picture(spec: ImageSpec, scheduler: str) -> None:
    """The libraries set torch's default dtype while they load, for all threads."""
    pipeline = Watched("sd1")
    spec = changed(spec, scheduler=scheduler)
    (alone,) = pipeline.flights(spec)
    while not alone.is_finished:
        pipeline.step([alone])
    torch.set_default_dtype(torch.float16)
    try:
        (beside,) = pipeline.flights(spec)
        while not beside.is_finished:
            pipeline.step([beside])
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(alone.latents, beside.latents)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_turn_that_fails_anywhere_can_be_taken_again(spec: ImageSpec, scheduler: str) -> None:
    """In the UNet, or in the midst of one picture's scheduler, after it has drawn its noise."""
    specs = [changed(spec, scheduler=scheduler, seed=seed) for seed in (1, 2)]
    pipeline = Watched("sd1")
    undisturbed = pipeline.flights(*specs)
    disturbed = pipeline.flights(*specs)
    for turn in range(4):
        pipeline.step(undisturbed)
        fail_after_step(disturbed[1])
        with pytest.raises(MemoryError):
            pipeline.step(disturbed)  # the first one has advanced, the second one has not
        if turn % 2:
            pipeline.before = full
            with pytest.raises(MemoryError, match="out of memory"):
                pipeline.step(disturbed[1:])
            pipeline.before = lambda rows: None
        assert pipeline.step(disturbed[1:]) == [None]
        for one, other in zip(undisturbed, disturbed, strict=True):
            assert torch.allclose(one.latents, other.latents, atol=1e-4)
            assert one.step == other.step


def full(rows: int) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def fail_after_step(flight: LatentFlight) -> None:
    """Once."""
    step, failures = type(flight.scheduler).step, ["CUDA out of memory"]

    def failing(*arguments: Any, **named: Any) -> Any:
        result = step(flight.scheduler, *arguments, **named)
        if failures:
            raise torch.OutOfMemoryError(failures.pop())
        return result

    flight.scheduler.step = failing


def test_a_scheduler_that_fails_ends_its_own_picture(spec: ImageSpec) -> None:
    pipeline = Watched("sd1")
    flights = pipeline.flights(spec, changed(spec, seed=8))

    def failing(*arguments: Any, **named: Any) -> Any:
        raise ValueError("no such timestep")

    flights[0].scheduler.step = failing
    fault, well = pipeline.step(flights)
    assert isinstance(fault, GenerationFailed)
    assert "no such timestep" in fault.message
    assert well is None
    assert [flight.step for flight in flights] == [0, 1]


def test_a_number_of_steps_that_the_scheduler_refuses(spec: ImageSpec) -> None:
    pipeline = Watched("sd1")
    with pytest.raises(GenerationFailed, match="refuses"):
        pipeline.begin(
            changed(spec, scheduler="lcm", num_inference_steps=400), lambda step, steps: None
        )


def test_what_is_not_stepped_draws_by_its_own_call() -> None:
    known = tiny_pipeline("sd1")
    assert isinstance(engine_pipeline(known, CPU), SteppingPipeline)
    derived = type("Derived", (type(known),), {})(**known.components)
    assert isinstance(engine_pipeline(derived, CPU), DiffusersPipeline)
    known.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    assert isinstance(engine_pipeline(known, CPU), DiffusersPipeline)


def test_how_much_at_once() -> None:
    pipeline = Watched("sd1")
    assert pipeline.capacity is CPU_CAPACITY
    cuda = SteppingPipeline(pipeline.pipeline, Device("cuda", "float16", "GPU"))
    assert cuda.capacity.area_pixels > CPU_CAPACITY.area_pixels
    measured = Capacity(pictures=3, area_pixels=1)
    assert engine_pipeline(pipeline.pipeline, CPU, measured).capacity is measured  # type: ignore[union-attr]
