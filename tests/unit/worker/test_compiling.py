"""A compiled UNet is used for what was compiled at load, and only while that goes well."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
import torch

from sdq.protocol.model import ModelDefaults, ModelFile, ModelManifest, canary_spec
from sdq.spec import ImageSpec
from sdq.testing.tiny_models import LAYOUTS, Layout, tiny_pipeline
from sdq.worker import compiling, devices, pipelines
from sdq.worker.compiling import Compiled
from sdq.worker.devices import Device
from sdq.worker.flight import Capacity
from sdq.worker.stepping import SteppingPipeline

# diffusers' schedulers hand torch's arrays to a numpy that has news for them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = Device(name="cpu", dtype="float32", label="cpu")

Forward = Callable[..., Any]


@pytest.fixture(autouse=True)
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CPU_CAPACITY", Capacity(4, 4 * 64 * 48))


@pytest.fixture
def manifest(manifest: ModelManifest) -> ModelManifest:
    """Of a model whose own size is small and whose pictures are guided."""
    return msgspec.structs.replace(manifest, defaults=ModelDefaults(64, 48, 4, 4.0, "ddim"))


def compile_with(monkeypatch: pytest.MonkeyPatch, compiler: Callable[[Forward], Forward]) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward, **options: compiler(forward))


def learned(layout: Layout, manifest: ModelManifest) -> tuple[SteppingPipeline, Compiled]:
    pipeline = tiny_pipeline(layout)
    compiled = compiling.prepare(pipeline)
    compiling.learn(compiled, pipeline, CPU, manifest)
    return SteppingPipeline(pipeline, CPU), compiled


def changed(spec: ImageSpec, **changes: Any) -> ImageSpec:
    return msgspec.structs.replace(spec, **changes)


def begun(pipeline: SteppingPipeline, *specs: ImageSpec) -> list[Any]:
    return [pipeline.begin(spec, lambda step, steps: None) for spec in specs]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_turns_of_the_models_own_size_are_what_was_compiled(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    compile_with(monkeypatch, lambda forward: forward)
    pipeline, compiled = learned(layout, manifest)
    own = canary_spec(manifest)
    flights = begun(pipeline, *(changed(own, seed=seed) for seed in range(4)))
    for count in range(1, 5):
        pipeline.step(flights[:count])
        assert compiled.calls == count
    pipeline.step(begun(pipeline, changed(own, width=48)))
    assert compiled.calls == 4
    pipeline.step(begun(pipeline, changed(own, guidance_scale=0.0)))  # one row
    assert compiled.calls == (5 if layout == "lcm" else 4)  # there, it always is


def test_real_compilation_of_a_turn(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Traced by torch, guarded by torch; only that no machine code is made of it, which takes a
    minute. One graph does for all numbers of pictures."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda forward, **options: real(forward, backend=backend, **options)
    )
    unet = Convolution()
    forward = Compiled(unet.forward)
    forward.is_learning = True
    # As the thread that learns has it, whatever this one has drawn before.
    learning = torch._dynamo.config.patch(error_on_recompile=False)
    with torch.inference_mode(), learning:
        for rows in (2, 4, 6):
            forward(torch.ones(rows, 4, 6, 8), torch.ones(rows), encoder_hidden_states=None)
    forward.is_learning = False
    with torch.inference_mode():
        count = len(graphs)
        latents = torch.rand(4, 4, 6, 8).to(memory_format=torch.channels_last)
        made = forward(latents, torch.ones(4), encoder_hidden_states=None)[0]
        assert torch.allclose(made, unet(latents, torch.ones(4), None)[0])
        assert forward.calls == 1
        forward(torch.ones(2, 4, 8, 8), torch.ones(2), encoder_hidden_states=None)
    with torch.no_grad():
        forward(torch.ones(2, 4, 6, 8), torch.ones(2), encoder_hidden_states=None)
    with torch.inference_mode():  # while another model loads
        torch.set_default_dtype(torch.float64)
        try:
            made = forward(latents, torch.ones(4), encoder_hidden_states=None)[0]
            assert torch.allclose(made, unet(latents, torch.ones(4), None)[0])
        finally:
            torch.set_default_dtype(torch.float32)
    assert len(graphs) == count == 1
    assert forward.calls == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, sample: Any, times: Any, encoder_hidden_states: Any) -> tuple[Any]:
        return (self.inner(sample) + times.view(-1, 1, 1, 1),)


def refuses(forward: Forward) -> Forward:
    def refusing(*arguments: Any, **named: Any) -> Any:
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler was found\nand more")

    return refusing


def lies(forward: Forward) -> Forward:
    def lying(*arguments: Any, **named: Any) -> Any:
        return tuple(1.2 * made for made in forward(*arguments, **named))

    return lying


def breaks(forward: Forward) -> Forward:
    raise RuntimeError("this Python is too new")


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(refuses, "no C++ compiler was found"), (lies, "other numbers"), (breaks, "too new")],
)
def test_a_failure_to_compile_is_one_warning(
    manifest: ModelManifest,
    spec: ImageSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    compiler: Callable[[Forward], Forward],
    reason: str,
) -> None:
    compile_with(monkeypatch, compiler)
    pipeline, compiled = learned("sd1", manifest)
    right = SteppingPipeline(tiny_pipeline("sd1"), CPU)
    for one in (pipeline, right):
        flights = begun(one, spec, changed(spec, seed=8))
        while not flights[0].is_finished:
            assert one.step(flights) == [None, None]
        images = one.decode(flights)
        if one is pipeline:
            made = images
    for image, other in zip(made, images, strict=True):
        assert numpy.array_equal(numpy.asarray(image), numpy.asarray(other))
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert reason in record.getMessage()
    assert "and more" not in record.getMessage()
    assert compiled.calls == 0


def test_what_fails_later_is_not_used_again(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = False

    def sometimes(forward: Forward) -> Forward:
        def call(*arguments: Any, **named: Any) -> Any:
            return (refuses(forward) if failing else forward)(*arguments, **named)

        return call

    compile_with(monkeypatch, sometimes)
    pipeline, compiled = learned("sd1", manifest)
    (flight,) = begun(pipeline, canary_spec(manifest))
    assert pipeline.step([flight]) == [None]
    failing = True
    for _ in range(2):
        assert pipeline.step([flight]) == [None]
    failing = False
    assert pipeline.step([flight]) == [None]
    assert flight.is_finished
    assert compiled.calls == 1
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_full_device_is_no_failure_to_compile(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def small(forward: Forward) -> Forward:
        def call(sample: Any, *arguments: Any, **named: Any) -> Any:
            if len(sample) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(sample, *arguments, **named)

        return call

    compile_with(monkeypatch, small)
    pipeline, compiled = learned("sd1", manifest)
    flights = begun(pipeline, *(changed(canary_spec(manifest), seed=seed) for seed in range(3)))
    pipeline.step(flights[:2])
    assert compiled.calls == 1
    pipeline.step(flights)
    assert compiled.calls == 1  # three are drawn as they are
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_loading(
    manifest: ModelManifest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    compile_with(monkeypatch, lambda forward: forward)
    tiny_pipeline("sd1").save_pretrained(tmp_path, safe_serialization=True)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors")]
    whole = tuple(ModelFile(path, None, "0" * 64, ()) for path in files)
    manifest = msgspec.structs.replace(manifest, files=whole)
    loaded = pipelines.load(tmp_path, manifest, CPU, compile=True)
    pipeline = SteppingPipeline(loaded, CPU)
    pipeline.step(begun(pipeline, canary_spec(manifest)))
    assert loaded.unet.forward.calls == 1
    assert not isinstance(pipelines.load(tmp_path, manifest, CPU).unet.forward, Compiled)


def test_what_cannot_be_compiled_says_so(
    manifest: ModelManifest, caplog: pytest.LogCaptureFixture
) -> None:
    known = tiny_pipeline("sd1")
    derived = type("Derived", (type(known),), {})(**known.components)
    assert pipelines.can_be_compiled(known, "model")
    assert not pipelines.can_be_compiled(known, "sequential")
    assert not pipelines.can_be_compiled(derived, "none")
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "its layers come to the device one by one",
        "this kind of model draws by its own call",
    ]
