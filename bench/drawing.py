"""What the benchmarks of drawing share: a model loaded twice, and three ways to draw with it.

``bare`` is the pipeline as diffusers loads it, ``ours`` as a worker loads it. The built-in model,
or one in its real size with random weights, which is built on first use below ``.cache``.
"""

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sdq.protocol.model import ModelManifest
from sdq.spec import ImageSpec

T = TypeVar("T")

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "full-size"
"""Not in git; `make clean` removes it."""

NATIVE_SIDES = {"shapes": 128, "sd1": 512, "sdxl": 1024}

_COLOURS, _SHAPES = ("red", "green", "blue", "yellow"), ("circle", "square", "triangle")


class Model(NamedTuple):
    """What is drawn with and how: ``side`` in pixels, ``guidance`` above 1 doubles each step."""

    name: str
    side: int
    guidance: float
    scheduler: str


def model_of(name: str, side: int = 0) -> Model:
    scheduler, guidance = ("ddim", 4.0) if name == "shapes" else ("euler", 5.0)
    return Model(name, side or NATIVE_SIDES[name], guidance, scheduler)


def specs_of(model: Model, steps: Sequence[int], seed: int) -> list[ImageSpec]:
    """A picture for each number of steps; prompts repeat after twelve."""
    return [
        ImageSpec(
            prompt=f"a {_COLOURS[n % 4]} {_SHAPES[n % 3]} on a white background",
            negative_prompt="",
            model=model.name,
            width=model.side,
            height=model.side,
            num_inference_steps=count,
            guidance_scale=model.guidance,
            scheduler=model.scheduler,
            seed=seed + n,
        )
        for n, count in enumerate(steps)
    ]


# ---------------------------------------------------------------- the model


def folder_of(name: str) -> Path:
    """Where the model lies; one in its real size is built when it is not there."""
    if name == "shapes":
        from sdq_shapes import folder

        return Path(folder())
    from sdq.testing import full_size

    place = CACHE / name
    try:
        full_size.files_of(place)
    except FileNotFoundError:
        begin = time.perf_counter()
        built = full_size.build(name, place)  # type: ignore[arg-type]
        seconds = time.perf_counter() - begin
        print(f"built {name}: {built.size_bytes / 1e9:.2f} GB in {seconds:.1f} s", flush=True)
    return place


def forget(name: str) -> None:
    """Deletes what `folder_of` built."""
    shutil.rmtree(CACHE / name, ignore_errors=True)


def manifest_of(model: Model, folder: Path) -> ModelManifest:
    """What loading reads of it, and what compiling aims at; nothing is hashed."""
    from sdq.protocol.model import ModelDefaults, ModelFile, ModelLimits
    from sdq.testing.full_size import files_of

    return ModelManifest(
        model_id=model.name,
        title=model.name,
        kind="folder",
        license="",
        files=tuple(ModelFile(path, None, "0" * 64, ()) for path in files_of(folder)),
        defaults=ModelDefaults(model.side, model.side, 2, model.guidance, model.scheduler),
        limits=ModelLimits(64, 2048, 2048 * 2048, 150, (model.scheduler,)),
        canary_prompt="a red circle",
        fingerprint="0" * 64,
    )


def load_bare(model: Model, folder: Path, device: Any) -> Any:
    """As diffusers gives it, contiguous, with the model's scheduler. Call it `in_a_thread`."""
    from sdq.worker import pipelines

    pipelines.silence()
    import torch
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(
        str(folder),
        dtype=getattr(torch, device.dtype),
        local_files_only=True,
        use_safetensors=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipelines.set_scheduler(pipeline, model.scheduler)
    return pipeline.to(device.name)


def load_ours(model: Model, folder: Path, device: Any, *, compile: bool = False) -> Any:
    """As a worker loads it. Call it `in_a_thread`."""
    from sdq.worker import pipelines

    manifest = manifest_of(model, folder)
    pipeline = pipelines.load(folder, manifest, device, compile=compile)
    pipelines.set_scheduler(pipeline, model.scheduler)
    return pipeline


@contextmanager
def engine_of(pipeline: Any, device: Any, model: Model, at_once: int = 0) -> Iterator[Any]:
    """A running engine, whose threads end with it; ``at_once`` pictures of the model's side, 0 for
    the device's own."""
    from sdq.worker.engine import Engine
    from sdq.worker.flight import Capacity
    from sdq.worker.holding import Holding
    from sdq.worker.stepping import engine_pipeline

    capacity = Capacity(at_once, at_once * model.side**2) if at_once else None
    held = Holding(model.name, lambda: engine_pipeline(pipeline, device, capacity))
    engine = Engine([held])
    engine.start()
    try:
        engine.wait_ready()
        yield engine
    finally:
        engine.close()


# ---------------------------------------------------------------- the ways to draw


def call(pipeline: Any, specs: Sequence[ImageSpec], **options: Any) -> Any:
    """diffusers' own ``__call__`` for pictures of equal steps; what it returns."""
    import torch

    first = specs[0]
    return pipeline(
        [spec.prompt for spec in specs],
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        width=first.width,
        height=first.height,
        generator=[torch.Generator("cpu").manual_seed(spec.seed) for spec in specs],
        **options,
    )


def one_by_one(pipeline: Any, specs: Sequence[ImageSpec]) -> None:
    for spec in specs:
        call(pipeline, [spec])


def in_batches(pipeline: Any, specs: Sequence[ImageSpec], size: int, window: int) -> None:
    """The oldest picture and those as long as it is, of the ``window`` oldest."""
    waiting = list(specs)
    while waiting:
        steps = waiting[0].num_inference_steps
        batch = [spec for spec in waiting[:window] if spec.num_inference_steps == steps][:size]
        waiting = [spec for spec in waiting if spec not in batch]
        call(pipeline, batch)


def by_engine(engine: Any, specs: Sequence[ImageSpec]) -> None:
    futures = [
        engine.submit(spec, on_step=lambda step, steps: None, is_cancelled=lambda: False)
        for spec in specs
    ]
    for future in futures:
        future.result()


def in_a_thread(act: Callable[[], T]) -> T:
    """What ``act`` gives, in a thread that ends with it.

    On a CPU torch keeps a team of threads for each thread that has calculated. Two teams take the
    cores from one another, even while one of them is idle: both halve their speed. A worker has
    one team, its engine's; so here whoever has calculated ends before the other one does.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


def rate(act: Callable[[], None], pictures: int) -> float:
    """Pictures a second; each way ends with pictures on the CPU, so nothing is left undone."""
    gc.collect()
    begin = time.perf_counter()
    act()
    return pictures / (time.perf_counter() - begin)
