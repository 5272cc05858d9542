"""The engine's view of a diffusers pipeline, with a pipeline that only records."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy
import pytest
import torch
from PIL import Image

from sdq.errors import Cancelled, GenerationFailed
from sdq.spec import ImageSpec
from sdq.worker import pipelines
from sdq.worker.devices import Device
from sdq.worker.drawing import DiffusersPipeline
from sdq.worker.flight import NoPicture

CPU = Device(name="cpu", dtype="float32", label="cpu")


class Recorder:
    """Behaves as a diffusers pipeline on the outside."""

    def __init__(self, act: Callable[[], None] = lambda: None, turns: int = 4) -> None:
        pipelines.silence()
        from diffusers import DDIMScheduler

        self.scheduler: Any = DDIMScheduler()
        self.act, self.num_timesteps = act, turns
        self.calls: list[dict[str, Any]] = []
        self.schedulers: list[Any] = []
        self.pixels = numpy.full((1, 48, 64, 3), 0.5, dtype="float32")
        self.unsafe: list[bool] = []
        self.image_processor = SimpleNamespace(
            numpy_to_pil=lambda pixels: [
                Image.fromarray((found * 255).round().astype("uint8")) for found in pixels
            ]
        )

    def __call__(self, **options: Any) -> Any:
        self.calls.append(options)
        self.schedulers.append(self.scheduler)
        for index in range(self.num_timesteps):
            options["callback_on_step_end"](self, index, None, {})
        self.act()
        prompts = options["prompt"]
        count = len(prompts) if isinstance(prompts, list) else 1
        if count > 1:
            self.pixels = numpy.concatenate([self.pixels] * count)
        return SimpleNamespace(images=self.pixels, nsfw_content_detected=self.unsafe)


def draw(recorder: Recorder, spec: ImageSpec) -> tuple[Image.Image, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    image = DiffusersPipeline(recorder, CPU).draw(spec, lambda *step: steps.append(step))
    return image, steps


def test_the_spec_reaches_the_pipeline(spec: ImageSpec) -> None:
    recorder = Recorder()
    image, steps = draw(recorder, spec)
    call = recorder.calls[0]
    assert image.size == (64, 48)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert call["prompt"] == "a cat"
    assert call["negative_prompt"] is None
    assert call["generator"].device.type == "cpu"
    assert call["generator"].initial_seed() == 7


def test_each_picture_has_a_scheduler_of_its_own(spec: ImageSpec) -> None:
    recorder = Recorder()
    pipeline = DiffusersPipeline(recorder, CPU)
    for name in ("ddim", "ddim", "euler"):
        pipeline.draw(msgspec.structs.replace(spec, scheduler=name), lambda *_: None)
    first, second, third = recorder.schedulers
    assert first is not second
    assert type(third).__name__ == "EulerDiscreteScheduler"


def test_schedulers_that_take_more_turns_count_in_steps(spec: ImageSpec) -> None:
    _, steps = draw(Recorder(turns=7), spec)
    assert [step for step, _ in steps] == [0, 1, 1, 2, 2, 3, 4]


def test_numbers_that_are_none(spec: ImageSpec) -> None:
    recorder = Recorder()
    recorder.pixels[0, 0, 0, 0] = numpy.nan
    with pytest.raises(NoPicture, match="NaN"):
        draw(recorder, spec)


def test_a_picture_that_the_safety_checker_holds_back(spec: ImageSpec) -> None:
    recorder = Recorder()
    recorder.unsafe = [True]
    with pytest.raises(GenerationFailed, match="safety checker") as caught:
        draw(recorder, spec)
    assert not isinstance(caught.value, NoPicture)  # it casts no doubt on the model


def draw_many(
    recorder: Recorder, specs: list[ImageSpec], ends: dict[int, int] | None = None
) -> tuple[list[Image.Image | Exception], list[list[int]]]:
    """``ends``: by number the step at which nobody waits for that one any more."""
    told: list[list[int]] = [[] for _ in specs]

    def listener(number: int) -> Callable[[int, int], None]:
        def on_step(step: int, steps: int) -> None:
            if step == (ends or {}).get(number):
                raise Cancelled("enough")
            told[number].append(step)

        return on_step

    listeners = [listener(number) for number in range(len(specs))]
    return DiffusersPipeline(recorder, CPU).draw_many(specs, listeners), told


def test_like_pictures_in_one_call(spec: ImageSpec) -> None:
    recorder = Recorder()
    recorder.unsafe = [False, True]
    dog = msgspec.structs.replace(spec, prompt="a dog", seed=8)
    (well, held_back), told = draw_many(recorder, [spec, dog])
    (call,) = recorder.calls
    assert call["prompt"] == ["a cat", "a dog"]
    assert call["negative_prompt"] is None
    assert [generator.initial_seed() for generator in call["generator"]] == [7, 8]
    assert told == [[1, 2, 3, 4]] * 2
    assert isinstance(well, Image.Image)
    assert isinstance(held_back, GenerationFailed)


def test_a_call_goes_on_while_somebody_waits_for_a_part_of_it(spec: ImageSpec) -> None:
    (gone, well), told = draw_many(Recorder(), [spec, spec], {0: 2})
    assert isinstance(gone, Cancelled)
    assert isinstance(well, Image.Image)
    assert told == [[1], [1, 2, 3, 4]]
    recorder = Recorder()
    both, told = draw_many(recorder, [spec, spec], {0: 3, 1: 2})
    assert all(isinstance(made, Cancelled) for made in both)
    assert told == [[1, 2], [1]]


@pytest.mark.parametrize(
    "change",
    [
        {"width": 128},
        {"height": 128},
        {"num_inference_steps": 5},
        {"guidance_scale": 5.0},
        {"scheduler": "euler"},
        {"negative_prompt": "ugly"},
    ],
)
def test_what_must_be_equal_in_one_call(spec: ImageSpec, change: dict[str, Any]) -> None:
    pipeline = DiffusersPipeline(Recorder(), CPU)
    other = msgspec.structs.replace(spec, **change)
    like = msgspec.structs.replace(spec, prompt="b", seed=1)
    assert pipeline.group_of(other) != pipeline.group_of(spec) == pipeline.group_of(like)


def raiser(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_full_device(spec: ImageSpec, error: Exception) -> None:
    with pytest.raises(MemoryError):
        draw(Recorder(raiser(error)), spec)


def test_other_errors_pass(spec: ImageSpec) -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        draw(Recorder(raiser(RuntimeError("device-side assert"))), spec)


def test_what_the_pipeline_refuses(spec: ImageSpec) -> None:
    with pytest.raises(GenerationFailed, match="`height` and `width`"):
        draw(Recorder(raiser(ValueError("`height` and `width` have to be"))), spec)
