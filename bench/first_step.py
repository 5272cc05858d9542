"""What the engine adds around the UNet: before the first step, beside each step, for a preview.

(a) From a picture's arrival at an idle engine to the first call of the UNet: with a prompt that is
new, and with one that was seen before. (b) Where the engine's own time goes in the steps of one
picture, by cProfile. (c) A preview: the engine's time for it, and its bytes on the way.

    python bench/first_step.py [--pictures 40] [--steps 100]
"""

import argparse
import contextlib
import cProfile
import os
import pstats
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from drawing import Model, engine_of, folder_of, in_a_thread, load_ours, model_of, specs_of
from measure import machine

from sdq.errors import Cancelled
from sdq.spec import ImageSpec

PAUSE_SECONDS = (0.02, 0.1)
"""Between two pictures: the engine's thread sleeps, and the system's clock has slowed down."""

WARM_PICTURES = 5
PREVIEWS = 100
SHOWN = ("sdq/worker/", "diffusers/schedulers/")
UNET = "unet_2d_condition.py:forward"
LEAST_SECONDS = 0.0005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100, help="of the picture that is profiled")
    options = parser.parse_args()
    from sdq.worker import devices

    device = devices.choose("cpu")
    model = model_of("shapes", 0)
    ours = in_a_thread(lambda: load_ours(model, folder_of(model.name), device))
    print(f"machine: {machine()}; load average {os.getloadavg()[0]:.2f}")
    arrivals(model, ours, device, options.pictures)
    in_a_thread(lambda: profile(model, ours, device, options.steps))
    in_a_thread(lambda: previews(model, ours, device))
    print(f"load average at the end {os.getloadavg()[0]:.2f}")


def arrivals(model: Model, ours: Any, device: Any, pictures: int) -> None:
    called_at: list[float] = []
    forward = ours.unet.forward

    def watched(*arguments: Any, **named: Any) -> Any:
        called_at.append(time.perf_counter())
        return forward(*arguments, **named)

    ours.unet.forward = watched
    pause = random.Random(0)
    print("from a picture's arrival to the first call of the UNet:")
    with engine_of(ours, device, model, 0) as engine:
        for name, specs in (
            ("a new prompt", specs_of(model, [20] * (WARM_PICTURES + pictures), seed=0)),
            ("a known one", specs_of(model, [20], seed=0) * (WARM_PICTURES + pictures)),
        ):
            waits = list(_waits(engine, _with_prompts(specs, name), called_at, pause))
            print(f"  {name + ':':14}{_spread(waits[WARM_PICTURES:])}")
    ours.unet.forward = forward


def _with_prompts(specs: Sequence[ImageSpec], name: str) -> list[ImageSpec]:
    import msgspec

    if name == "a known one":
        return list(specs)
    return [
        msgspec.structs.replace(spec, prompt=f"{spec.prompt}, number {number}")
        for number, spec in enumerate(specs)
    ]


def _waits(
    engine: Any, specs: Sequence[ImageSpec], called_at: list[float], pause: random.Random
) -> Iterator[float]:
    for spec in specs:
        time.sleep(pause.uniform(*PAUSE_SECONDS))
        called_at.clear()
        begin = time.perf_counter()
        future = engine.submit(
            spec, on_step=lambda step, steps: None, is_cancelled=lambda: bool(called_at)
        )
        with contextlib.suppress(Cancelled):  # after its first step: no more is asked for
            future.result()
        yield called_at[0] - begin


def profile(model: Model, ours: Any, device: Any, steps: int) -> None:
    from sdq.worker.stepping import SteppingPipeline

    stepping = SteppingPipeline(ours, device)
    (spec,) = specs_of(model, [steps], seed=0)
    flight = stepping.begin(spec, lambda step, steps: None)
    stepping.step([flight])  # warm
    profiler = cProfile.Profile()
    profiler.enable()
    while not flight.is_finished:
        stepping.step([flight])
    profiler.disable()
    print(
        f"{steps - 1} steps of one picture by cProfile, ms with what they call, their own, calls:"
    )
    stats: Any = pstats.Stats(profiler)
    rows = [
        (whole, own, calls, f"{_short(file)}:{name}")
        for (file, _, name), (_, calls, own, whole, _) in stats.stats.items()
        if whole >= LEAST_SECONDS
        and (any(part in file for part in SHOWN) or f"{file}:{name}".endswith(UNET))
    ]
    for whole, own, calls, where in sorted(rows, reverse=True):
        print(f"  {whole * 1e3:9.1f} {own * 1e3:8.1f} {calls:6d}  {where}")


def _short(file: str) -> str:
    for start in ("site-packages/", "sdq/worker/"):
        _, found, after = file.rpartition(start)
        if found:
            return after if start == "site-packages/" else start + after
    return file


def previews(model: Model, ours: Any, device: Any) -> None:
    from sdq.worker.showing import jpeg_of
    from sdq.worker.stepping import SteppingPipeline

    stepping = SteppingPipeline(ours, device)
    (spec,) = specs_of(model, [PREVIEWS], seed=0)
    flight = stepping.begin(spec, lambda step, steps: None)
    times, sizes, fit_seconds = [], [], 0.0
    while not flight.is_finished:
        stepping.step([flight])
        begin = time.perf_counter()
        image = stepping.preview(flight)
        seconds = time.perf_counter() - begin
        if not sizes:
            fit_seconds = seconds  # the first one finds the colours of the model's latents
        else:
            times.append(seconds)
        if image is not None:
            sizes.append(len(jpeg_of(image)))
    print(f"a preview in the engine's thread: {_spread(times)}; the first one {fit_seconds:.3f} s")
    print(f"  as a JPEG: median {statistics.median(sizes):.0f} bytes (max {max(sizes)})")


def _spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return (
        f"median {statistics.median(ordered) * 1e3:.2f} ms, p95 {late * 1e3:.2f}, "
        f"worst {ordered[-1] * 1e3:.2f}"
    )


if __name__ == "__main__":
    main()
