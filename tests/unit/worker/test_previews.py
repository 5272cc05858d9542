"""Latents as colours: close to the picture that comes of them, whatever the scheduler."""

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy
import pytest
import sdq_shapes
import torch
from PIL import Image

from sdq.spec import ImageSpec
from sdq.testing.tiny_models import tiny_pipeline
from sdq.worker import pipelines
from sdq.worker.decoding import Decoder
from sdq.worker.devices import Device
from sdq.worker.latents import LatentFlight
from sdq.worker.previews import Previewer, clean, colour_fields
from sdq.worker.stepping import SteppingPipeline

CPU = Device("cpu", "float32", "cpu")

# diffusers has its own quarrels with numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def shapes() -> Any:
    """The built-in model, as a worker loads it."""
    pipelines.silence()
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        sdq_shapes.folder(), dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def circle(spec: ImageSpec) -> ImageSpec:
    prompt = "a red circle on a blue background"
    return msgspec.structs.replace(
        spec, prompt=prompt, width=128, height=128, num_inference_steps=10
    )


def error(preview: Image.Image | None, picture: Image.Image) -> float:
    """The mean difference of a colour, of 255, to the picture scaled down."""
    assert preview is not None
    small = picture.resize(preview.size, Image.Resampling.BOX)
    difference = numpy.asarray(preview, float) - numpy.asarray(small, float)
    return float(abs(difference).mean())


def test_the_built_in_model_can_be_watched(shapes: Any, circle: ImageSpec) -> None:
    pipeline = SteppingPipeline(shapes, CPU)
    flight = pipeline.begin(circle, lambda step, steps: None)
    assert pipeline.preview(flight) is None  # nothing is known before the first step
    seen = []
    while not flight.is_finished:
        pipeline.step([flight])
        seen.append(pipeline.preview(flight))
    (picture,) = pipeline.decode([flight])
    assert isinstance(picture, Image.Image)
    errors = [error(preview, picture) for preview in seen]
    assert {preview.size for preview in seen if preview} == {(16, 16)}
    assert errors[5] < 35
    assert errors[-1] < 22
    assert errors[0] > errors[5] > errors[-1]
    red, _, blue = numpy.asarray(seen[-1], int)[8, 8]
    assert red > 180
    assert blue < 100


def test_looking_changes_nothing(spec: ImageSpec) -> None:
    pipeline = SteppingPipeline(tiny_pipeline("sd1"), CPU)
    watched, other = (pipeline.begin(spec, lambda step, steps: None) for _ in range(2))
    for _ in range(3):
        pipeline.step([watched])
        pipeline.preview(watched)
        pipeline.step([other])
        assert isinstance(watched, LatentFlight)
        assert isinstance(other, LatentFlight)
        assert torch.equal(watched.latents, other.latents)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", pipelines.SCHEDULERS)
def test_what_the_model_takes_the_picture_to_be(name: str, kind: str) -> None:
    """diffusers' own schedulers make the noise: a model that is right leads back to the picture."""
    config = {"prediction_type": kind, "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = pipelines.make_scheduler(name, config | {"beta_schedule": "scaled_linear"})
    scheduler.set_timesteps(10)
    made = torch.Generator().manual_seed(3)
    picture, noise = torch.randn(2, 1, 4, 6, 6, generator=made)
    for time in (scheduler.timesteps[1], scheduler.timesteps[6]):
        share = scheduler.alphas_cumprod[int(time)]
        said = noise if kind == "epsilon" else share**0.5 * noise - (1 - share) ** 0.5 * picture
        shown = scheduler.add_noise(picture, noise, time.reshape(1))
        scheduler._step_index = None
        shown = scheduler.scale_model_input(shown, time)
        found = clean(shown, said, float(time), scheduler)
        assert found is not None
        assert torch.allclose(found, picture, atol=0.02)


def test_a_scheduler_that_counts_otherwise_gives_no_previews() -> None:
    one = torch.zeros(1)
    assert clean(one, one, 5.0, SimpleNamespace()) is None
    odd = SimpleNamespace(
        alphas_cumprod=torch.ones(10) / 2, config=SimpleNamespace(prediction_type="flow")
    )
    assert clean(one, one, 5.0, odd) is None


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_the_other_vaes_are_fitted_too(layout: Any) -> None:
    pipeline = tiny_pipeline(layout)
    previewer = Previewer(pipeline, Decoder(pipeline))
    with torch.inference_mode():
        preview = previewer.picture(torch.randn(1, 4, 6, 9))
    assert preview is not None
    assert (preview.size, preview.mode) == ((9, 6), "RGB")


def test_a_vae_that_fails_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = tiny_pipeline("sd1")
    asked = []

    def failing(pixels: torch.Tensor) -> Any:
        asked.append(pixels.shape)
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipeline.vae.encode = failing
    previewer = Previewer(pipeline, Decoder(pipeline))
    assert [previewer.picture(torch.zeros(1, 4, 8, 8)) for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    assert [record.message for record in caplog.records] == [
        "no previews: OutOfMemoryError: CUDA out of memory"
    ]


def test_numbers_that_are_none_are_not_shown() -> None:
    pipeline = tiny_pipeline("sd1")
    previewer = Previewer(pipeline, Decoder(pipeline))
    with torch.inference_mode():
        assert previewer.picture(torch.full((1, 4, 8, 8), torch.nan)) is None
        assert previewer.picture(torch.zeros(1, 4, 8, 8)) is not None


def test_the_vae_is_brought_before_it_is_called_and_only_then() -> None:
    pipeline, brought = tiny_pipeline("sd1"), []
    previewer = Previewer(pipeline, Decoder(pipeline), lambda: brought.append("vae"))
    assert brought == []
    with torch.inference_mode():
        previewer.picture(torch.zeros(1, 4, 8, 8))
        previewer.picture(torch.zeros(1, 4, 8, 8))
    assert brought == ["vae"]


def test_the_fields_are_many_colours_and_always_the_same() -> None:
    fields = colour_fields(24, 32)
    assert fields.shape == (24, 3, 32, 32)
    assert fields.abs().max() <= 1
    assert torch.equal(fields, colour_fields(24, 32))
    assert fields.std(dim=(0, 2, 3)).min() > 0.3
