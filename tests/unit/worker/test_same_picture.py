"""Stepped in company, a picture is what the pipeline's own ``__call__`` draws for its spec."""

from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any

import msgspec
import numpy
import pytest

from sdq.spec import ImageSpec
from sdq.testing.pipeline import held
from sdq.testing.tiny_models import LAYOUTS, Layout, tiny_pipeline
from sdq.worker.devices import Device
from sdq.worker.drawing import DiffusersPipeline
from sdq.worker.engine import Engine
from sdq.worker.flight import Flight
from sdq.worker.pipelines import SCHEDULERS
from sdq.worker.stepping import SteppingPipeline, engine_pipeline

# diffusers' schedulers hand torch's arrays to a numpy that has news for them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning"),
]

WAIT_SECONDS = 60.0
MOST_DIFFERENCE = 2
"""Of 255, in any pixel, in float32: what rounding in another order may do."""

MOST_HALF_DIFFERENCE = {"float16": 8, "bfloat16": 32}
MOST_HALF_MEAN = {"float16": 0.4, "bfloat16": 1.5}
"""Of 255, in any pixel and on average, in halves: they keep 11 bits and 8, and how a sum is
rounded depends on how many pictures share it."""

CPU = Device(name="cpu", dtype="float32", label="cpu")


@cache
def pipeline_of(layout: Layout) -> Any:
    return tiny_pipeline(layout)


def stepping(loaded: Any) -> SteppingPipeline:
    pipeline = engine_pipeline(loaded, CPU)
    assert isinstance(pipeline, SteppingPipeline)
    return pipeline


@pytest.fixture
def company(spec: ImageSpec) -> list[ImageSpec]:
    """A picture and three that differ from it in all that may differ inside one turn, one of
    them in its size too, so that it has turns of its own."""
    return [
        msgspec.structs.replace(spec, num_inference_steps=8, negative_prompt="ugly"),
        msgspec.structs.replace(spec, prompt="two dogs", num_inference_steps=5, guidance_scale=7.3),
        msgspec.structs.replace(spec, width=48, height=64, seed=8, num_inference_steps=4),
        msgspec.structs.replace(spec, guidance_scale=0.0, seed=9, num_inference_steps=6),
    ]


def drawn_together(pipeline: SteppingPipeline, specs: list[ImageSpec]) -> list[Any]:
    """The first one from the beginning, the others from its second and third step on."""
    futures: dict[int, Future[Any]] = {}
    sizes: set[int] = set()
    step = pipeline.step

    def counted(flights: Sequence[Flight]) -> list[Exception | None]:
        sizes.add(len(flights))
        return step(flights)

    pipeline.step = counted  # type: ignore[method-assign]
    engine = Engine([held(pipeline)])

    def submit(*numbers: int) -> None:
        for number in numbers:
            futures[number] = engine.submit(
                specs[number],
                on_step=on_first_step if number == 0 else lambda step, steps: None,
                is_cancelled=lambda: False,
            )

    def on_first_step(step: int, steps: int) -> None:
        if step == 2:
            submit(1, 2)
        elif step == 3:
            submit(3)

    engine.start()
    engine.wait_ready(WAIT_SECONDS)
    submit(0)
    try:
        futures[0].result(WAIT_SECONDS)
        images = [futures[number].result(WAIT_SECONDS).image for number in range(len(specs))]
    finally:
        assert engine.close()
    assert max(sizes) == 3  # else nothing was shared
    return images


def drawn_alone(pipeline: SteppingPipeline, spec: ImageSpec) -> Any:
    flight = pipeline.begin(spec, lambda step, steps: None)
    while not flight.is_finished:
        assert pipeline.step([flight]) == [None]
    return pipeline.decode([flight])[0]


def drawn_by_call(loaded: Any, spec: ImageSpec) -> Any:
    return DiffusersPipeline(loaded, CPU).draw(spec, lambda step, steps: None)


def difference(one: Any, other: Any) -> int:
    assert one.size == other.size
    return int(numpy.abs(numpy.asarray(one, int) - numpy.asarray(other, int)).max())


def with_scheduler(specs: list[ImageSpec], *names: str) -> list[ImageSpec]:
    return [
        msgspec.structs.replace(spec, scheduler=names[number % len(names)])
        for number, spec in enumerate(specs)
    ]


@pytest.mark.parametrize(
    ("layout", "scheduler"),
    [
        *((layout, scheduler) for layout in LAYOUTS[:-1] for scheduler in SCHEDULERS),
        *(("lcm", scheduler) for scheduler in ("lcm", "euler", "heun")),
    ],
)
def test_alone_and_in_company(company: list[ImageSpec], layout: Layout, scheduler: str) -> None:
    loaded = pipeline_of(layout)
    pipeline = stepping(loaded)
    specs = with_scheduler(company, scheduler)
    expected = [drawn_by_call(loaded, spec) for spec in specs]
    assert difference(drawn_alone(pipeline, specs[0]), expected[0]) <= MOST_DIFFERENCE
    for image, right in zip(drawn_together(pipeline, specs), expected, strict=True):
        assert difference(image, right) <= MOST_DIFFERENCE


@pytest.mark.parametrize("layout", ["sd1", "sd2", "sdxl", "lcm"])
def test_one_turn_may_hold_all_schedulers(company: list[ImageSpec], layout: Layout) -> None:
    loaded = pipeline_of(layout)
    names = list(SCHEDULERS)
    same_size = [company[0], company[1], company[3]]
    for start in range(0, len(names), 3):
        specs = with_scheduler(same_size, *names[start:], *names)
        images = drawn_together(stepping(loaded), [*specs, company[2]])
        for image, spec in zip(images, specs, strict=False):
            assert difference(image, drawn_by_call(loaded, spec)) <= MOST_DIFFERENCE


@pytest.mark.parametrize("layout", ["sdxl", "lcm"])
def test_what_is_compared_can_be_told_apart(company: list[ImageSpec], layout: Layout) -> None:
    """The test above would see a wrong prompt, negative prompt, guidance, seed or step count."""
    loaded, spec = pipeline_of(layout), company[0]
    right = drawn_by_call(loaded, spec)
    for change in (
        {"prompt": "a hat"},
        {"negative_prompt": ""},
        {"guidance_scale": 4.2},
        {"seed": 8},
        {"num_inference_steps": 9},
    ):
        if layout == "lcm" and "negative_prompt" in change:
            continue  # such models have none
        other = drawn_by_call(loaded, msgspec.structs.replace(spec, **change))
        assert difference(other, right) > 5 * MOST_DIFFERENCE


@pytest.mark.parametrize(
    ("layout", "scheduler", "dtype"),
    [
        *(("sdxl", scheduler, "bfloat16") for scheduler in SCHEDULERS),
        ("sd1", "pndm", "bfloat16"),
        ("sd2", "pndm", "bfloat16"),
        *(("sdxl", scheduler, "float16") for scheduler in SCHEDULERS),
        ("sd1", "pndm", "float16"),
        ("lcm", "lcm", "float16"),
    ],
)
def test_in_half_precision(
    company: list[ImageSpec], layout: Layout, scheduler: str, dtype: str
) -> None:
    specs = with_scheduler(company, scheduler)
    bare, loaded = (halved(layout, dtype, use) for use in ("called", "stepped"))
    for image, spec in zip(drawn_together(stepping(loaded), specs), specs, strict=True):
        right = drawn_by_call(bare, spec)
        assert difference(image, right) <= MOST_HALF_DIFFERENCE[dtype]
        away = numpy.abs(numpy.asarray(image, int) - numpy.asarray(right, int)).mean()
        assert away <= MOST_HALF_MEAN[dtype]


@cache
def halved(layout: Layout, dtype: str, use: str) -> Any:
    """One for each use: the engine keeps SDXL's VAE in full precision, ``__call__`` puts it to
    and fro."""
    import torch

    return tiny_pipeline(layout).to(getattr(torch, dtype))
