"""The built-in model in turns with others, beside its pipeline's own call."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import numpy
import pytest
import sdq_shapes
import torch

from sdq.protocol.model import ModelManifest
from sdq.spec import ImageSpec
from sdq.testing.pipeline import held
from sdq.worker import pipelines
from sdq.worker.devices import Device
from sdq.worker.drawing import DiffusersPipeline
from sdq.worker.engine import Engine
from sdq.worker.stepping import SteppingPipeline, engine_pipeline

MOST_DIFFERENCE = 2
"""Of 255, in any pixel."""
WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Several threads share each operation, as on a real worker; other tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral", "dpmpp_2m"])
def test_joined_at_different_steps(send_shapes: Any, shapes: ModelManifest, scheduler: str) -> None:
    device = Device(name="cpu", dtype="float32", label="cpu")
    loaded = pipelines.load(sdq_shapes.folder(), shapes, device)
    pipeline = engine_pipeline(loaded, device)
    assert isinstance(pipeline, SteppingPipeline)
    first: ImageSpec = send_shapes.spec(width=64, height=64, num_inference_steps=7)
    first = msgspec.structs.replace(first, scheduler=scheduler)
    specs = [
        first,
        msgspec.structs.replace(first, prompt="a green star", num_inference_steps=4, seed=2),
        msgspec.structs.replace(first, guidance_scale=1.0, num_inference_steps=3, seed=3),
        msgspec.structs.replace(first, width=96, num_inference_steps=3, seed=4),
    ]
    for image, spec in zip(_together(pipeline, specs), specs, strict=True):
        right = DiffusersPipeline(loaded, device).draw(spec, lambda step, steps: None)
        away = numpy.abs(numpy.asarray(image, int) - numpy.asarray(right, int))
        assert away.max() <= MOST_DIFFERENCE
        assert numpy.asarray(right).std() > 10  # there is something to compare


def _together(pipeline: SteppingPipeline, specs: list[ImageSpec]) -> list[Any]:
    """Each but the first joins one step of the first one later."""
    engine = Engine([held(pipeline)])
    futures: dict[int, Future[Any]] = {}

    def submit(number: int, on_step: Callable[[int, int], None]) -> None:
        futures[number] = engine.submit(specs[number], on_step=on_step, is_cancelled=lambda: False)

    def on_first_step(step: int, steps: int) -> None:
        if 0 < step < len(specs):
            submit(step, lambda step, steps: None)

    engine.start()
    submit(0, on_first_step)
    try:
        futures[0].result(WAIT_SECONDS)
        return [futures[number].result(WAIT_SECONDS).image for number in range(len(specs))]
    finally:
        assert engine.close()
