"""Parts of a model that rest elsewhere: who comes, who leaves, and that the picture is the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from sdq.protocol.model import ModelManifest
from sdq.spec import ImageSpec
from sdq.testing.tiny_models import Layout, tiny_pipeline
from sdq.worker import memory, offload
from sdq.worker.devices import Device
from sdq.worker.memory import GIB, WORK_BYTES, Weights
from sdq.worker.offload import Parts
from sdq.worker.stepping import SteppingPipeline

# diffusers' schedulers hand torch's arrays to a numpy that has news for them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = Device(name="cpu", dtype="float32", label="cpu")
FAKE = Device(name="fake", dtype="float16", label="a card")


@pytest.mark.parametrize(
    ("asked", "device", "free", "resting"),
    [
        ("auto", CPU, 0, "none"),
        ("auto", FAKE, 8 * GIB + WORK_BYTES, "none"),
        ("auto", FAKE, 6 * GIB, "sequential"),
        ("auto", FAKE, 5 * GIB + WORK_BYTES, "model"),
        ("model", FAKE, 99 * GIB, "model"),
        ("none", FAKE, 0, "none"),
        ("sequential", FAKE, 99 * GIB, "sequential"),
        ("sequential", CPU, 0, "none"),
    ],
)
def test_what_becomes_of_auto(
    manifest: ModelManifest,
    monkeypatch: pytest.MonkeyPatch,
    asked: Any,
    device: Device,
    free: int,
    resting: str,
) -> None:
    weights = {"float16": Weights(8 * GIB, 5 * GIB)}
    monkeypatch.setattr(memory, "expected", lambda folder, manifest, dtype: weights[dtype])
    monkeypatch.setattr(memory, "free_bytes", lambda name: free)
    assert offload.decide(asked, Path(), manifest, device) == resting


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_the_same_picture_layer_by_layer(spec: ImageSpec, layout: Layout) -> None:
    """With the hooks that `diffusers` asks accelerate for: outside the calls of their layers there
    are no weights, on whatever device."""
    right = drawn(SteppingPipeline(tiny_pipeline(layout), CPU), spec)
    pipeline = layer_by_layer(tiny_pipeline(layout))
    stepping = SteppingPipeline(pipeline, CPU)
    for _ in range(2):  # after a decoding as well
        made = drawn(stepping, spec)
        assert numpy.abs(numpy.asarray(made, int) - numpy.asarray(right, int)).max() <= 1
        parts = (pipeline.text_encoder, pipeline.unet, pipeline.vae)
        assert {part.device.type for part in parts} == {"meta"}


def layer_by_layer(pipeline: Any) -> Any:
    """As ``enable_sequential_cpu_offload`` does, which insists on a device with a number, and for
    accelerate ``cpu:0`` is another one than ``cpu``."""
    from accelerate import cpu_offload

    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            buffers = len(part._parameters) > 0
            cpu_offload(part, torch.device("cpu"), offload_buffers=buffers)
    return pipeline


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_the_same_picture_part_by_part(spec: ImageSpec, layout: Layout) -> None:
    right = drawn(SteppingPipeline(tiny_pipeline(layout), CPU), spec)
    pipeline = tiny_pipeline(layout)
    pipeline.enable_model_cpu_offload(device="cpu")
    stepping = SteppingPipeline(pipeline, CPU)
    for _ in range(2):
        made = drawn(stepping, spec)
        assert numpy.abs(numpy.asarray(made, int) - numpy.asarray(right, int)).max() <= 1


def drawn(pipeline: SteppingPipeline, spec: ImageSpec) -> Any:
    flight = pipeline.begin(spec, lambda step, steps: None)
    while not flight.is_finished:
        assert pipeline.step([flight]) == [None]
    return pipeline.decode([flight])[0]


def test_sdxls_decoder_in_full_numbers_rests_too(spec: ImageSpec) -> None:
    pipeline = layer_by_layer(tiny_pipeline("sdxl").to(torch.float16))
    image = drawn(SteppingPipeline(pipeline, Device("cpu", "float16", "cpu")), spec)
    assert image.size == (64, 48)
    assert pipeline.vae.dtype == torch.float32


class Part(torch.nn.Module):
    """Pretends to move. ``fails``: so often it arrives by half only."""

    def __init__(self, size_bytes: int, home: "Home") -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(size_bytes, dtype=torch.uint8), False)
        self.device = torch.device("cpu")
        self.home = home
        self.fails = 0

    def to(self, device: Any) -> "Part":  # type: ignore[override]
        self.device = torch.device(device)
        if self.fails and self.device.type != "cpu":
            self.fails -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self


class Home:
    """A pipeline with parts of 10, 10, 50 and 20 bytes, and the memory of its device."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        sizes = {"text_encoder": 10, "text_encoder_2": 10, "unet": 50, "vae": 20}
        self.components: dict[str, Any] = {name: Part(size, self) for name, size in sizes.items()}
        self.components["tokenizer"] = object()

    def enable_model_cpu_offload(self, device: str) -> None:
        from accelerate import cpu_offload_with_hook

        hook = None
        for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
            _, hook = cpu_offload_with_hook(self.components[name], "meta", hook)

    def remove_all_hooks(self) -> None:
        from accelerate.hooks import remove_hook_from_module

        for part in self.components.values():
            if isinstance(part, Part):
                remove_hook_from_module(part)

    @property
    def there(self) -> set[str]:
        parts = self.components.items()
        return {
            name for name, part in parts if isinstance(part, Part) and part.device.type != "cpu"
        }

    def free_bytes(self, device_name: str) -> int | None:
        return self.size_bytes - sum(memory.size_of(self.components[name]) for name in self.there)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Home, Parts]]:
    def make(size_bytes: int) -> tuple[Home, Parts]:
        made = Home(size_bytes)
        monkeypatch.setattr(memory, "WORK_BYTES", 5)
        monkeypatch.setattr(memory, "free_bytes", made.free_bytes)
        offload.place(made, Device("meta", "float16", "a card"), "model")
        return made, Parts(made, Device("meta", "float16", "a card"))

    return make


TEXTS = {"text_encoder", "text_encoder_2"}


def test_nobody_leaves_while_there_is_room(home: Any) -> None:
    pipeline, parts = home(95)
    for names in (offload.TEXT_ENCODERS, ("unet",), ("vae",), ("unet",)):
        parts.need(*names)
    assert pipeline.there == TEXTS | {"unet", "vae"}


def test_those_leave_that_were_idle_longest(home: Any) -> None:
    pipeline, parts = home(80)
    parts.need(*offload.TEXT_ENCODERS)
    parts.need("unet")
    assert pipeline.there == TEXTS | {"unet"}
    parts.need("vae")
    assert pipeline.there == {"unet", "vae"}
    parts.need("unet")
    parts.need(*offload.TEXT_ENCODERS)
    assert pipeline.there == TEXTS | {"unet"}


def test_what_is_needed_together_stays_together(home: Any) -> None:
    pipeline, parts = home(60)
    parts.need("unet")
    parts.need(*offload.TEXT_ENCODERS)
    assert pipeline.there == TEXTS
    parts.need("unet")
    assert pipeline.there == {"unet"}


def test_where_nobody_knows_the_memory_one_is_there_at_a_time(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, parts = home(1000)
    monkeypatch.setattr(memory, "free_bytes", lambda name: None)
    for names in (offload.TEXT_ENCODERS, ("unet",), ("vae",)):
        parts.need(*names)
        assert pipeline.there == set(names)


def test_a_device_that_is_full_before_it_should_be(home: Any) -> None:
    pipeline, parts = home(1000)
    parts.need("vae")
    pipeline.components["unet"].fails = 1
    parts.need("unet")
    assert pipeline.there == {"unet"}
    pipeline.components["vae"].fails = 2
    with pytest.raises(torch.OutOfMemoryError):
        parts.need("vae")
    assert pipeline.there == set()  # not by half
    parts.need("vae")
    assert pipeline.there == {"vae"}


def test_all_but_one_leave(home: Any) -> None:
    pipeline, parts = home(1000)
    parts.need(*offload.TEXT_ENCODERS)
    parts.need("unet")
    assert parts.leave_but("unet")
    assert pipeline.there == {"unet"}
    assert not parts.leave_but("unet")


def test_a_pipeline_that_is_on_its_device_is_left_alone() -> None:
    pipeline = tiny_pipeline("sd1")
    parts = Parts(pipeline, CPU)
    parts.need("unet", "vae")
    assert not parts.leave_but("unet")
    assert not hasattr(pipeline.unet, "_hf_hook")
