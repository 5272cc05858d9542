"""Pictures a second with all there is to do at once: one by one, in static batches, by the engine.

(a) the bare pipeline, one picture after the other; (b) the bare pipeline in static batches of
the best size; (c) sdq's engine, handed everything at once. Once with equal steps, once with
mixed ones, which a static batch cannot hold: it takes the oldest picture and, of those beside
it in a window as large as the engine's hand, those with as many steps. Rounds of a, b and c in
turn, so that the machine's drift cancels. At last the engine's own share of a step.

    python bench/engine.py [--pictures 24] [--rounds 3] [--threads 0]
        [--bare-layout contiguous] [--at-once 0]
"""

import argparse
import gc
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from measure import machine, spread
from sdq_shapes import folder

from sdq.spec import ImageSpec

EQUAL_STEPS = 20
MIXED_STEPS = (10, 14, 18, 22, 26, 30)  # 20 on average too
BATCHES = (2, 4, 8, 16)
OWN_SHARE_PICTURES = 6


def specs_of(steps: Sequence[int], seed: int) -> list[ImageSpec]:
    colours, shapes = ("red", "green", "blue", "yellow"), ("circle", "square", "triangle")
    return [
        ImageSpec(
            prompt=f"a {colours[n % 4]} {shapes[n % 3]} on a white background",
            negative_prompt="",
            model="shapes",
            width=128,
            height=128,
            num_inference_steps=count,
            guidance_scale=4.0,
            scheduler="ddim",
            seed=seed + n,
        )
        for n, count in enumerate(steps)
    ]


def load(threads: int, layout: str = "contiguous") -> tuple[Any, Any]:
    """The model bare as diffusers loads it, and as a worker loads it."""
    from sdq.worker import devices, pipelines

    device = devices.choose("cpu")
    import torch
    from diffusers import DiffusionPipeline

    if threads:
        torch.set_num_threads(threads)
    pipelines.silence()
    bare, ours = (
        DiffusionPipeline.from_pretrained(str(folder()), dtype=torch.float32) for _ in range(2)
    )
    for pipeline in (bare, ours):
        pipeline.set_progress_bar_config(disable=True)
    if layout == "channels_last":
        bare = pipelines.channels_last(bare, device)
    return bare, (pipelines.channels_last(ours, device), device)


def call(pipeline: Any, specs: Sequence[ImageSpec]) -> None:
    import torch

    first = specs[0]
    pipeline(
        [spec.prompt for spec in specs],
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        width=first.width,
        height=first.height,
        generator=[torch.Generator("cpu").manual_seed(spec.seed) for spec in specs],
    )


def one_by_one(pipeline: Any, specs: Sequence[ImageSpec]) -> None:
    for spec in specs:
        call(pipeline, [spec])


def in_batches(pipeline: Any, specs: Sequence[ImageSpec], size: int, window: int) -> None:
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


def rate(act: Callable[[], None], pictures: int) -> float:
    gc.collect()
    begin = time.perf_counter()
    act()
    return pictures / (time.perf_counter() - begin)


def best_batch(pipeline: Any, pictures: int) -> int:
    specs = specs_of([EQUAL_STEPS // 2] * max(pictures, max(BATCHES)), seed=500)
    rates = {
        size: max(rate(lambda s=size: call(pipeline, specs[:s]), size) for _ in range(2))
        for size in BATCHES
        if size <= pictures
    }
    print("static batches:", ", ".join(f"{size}: {per:.2f}/s" for size, per in rates.items()))
    return max(rates, key=lambda size: rates[size])


def compare(
    name: str, steps: Sequence[int], rounds: int, bare: Any, engine: Any, size: int
) -> None:
    from sdq.worker.app import in_hand

    found: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for number in range(rounds):
        specs = specs_of(steps, seed=1000 * number)
        window = max(size, in_hand(engine.at_once))
        ways: dict[str, Callable[[], None]] = {
            "a": lambda s=specs: one_by_one(bare, s),
            "b": lambda s=specs, w=window: in_batches(bare, s, size, w),
            "c": lambda s=specs: by_engine(engine, s),
        }
        for way, act in ways.items():
            found[way].append(rate(act, len(specs)))
    a, b, c = (statistics.median(found[way]) for way in "abc")
    print(f"{name} steps, pictures a second:")
    print(f"  (a) one by one:           {spread(found['a'], '/s', 1)}")
    print(f"  (b) batches of at most {size}: {spread(found['b'], '/s', 1)}")
    print(f"  (c) sdq's engine:         {spread(found['c'], '/s', 1)}")
    print(f"  c/a {c / a:.2f}   c/b {c / b:.2f}")


class Clock:
    """Time inside the model's parts."""

    def __init__(self, pipeline: Any) -> None:
        self.seconds = 0.0
        self.calls: Counter[str] = Counter()
        for part, method in (("unet", "forward"), ("vae", "decode"), ("text_encoder", "forward")):
            owner = getattr(pipeline, part)
            setattr(owner, method, self._timed(part, getattr(owner, method)))

    def _timed(self, part: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return act(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - begin
                self.calls[part] += 1

        return timed


def own_share(pipeline: Any, engine: Any) -> None:
    """With one picture at a time: what is not UNet, VAE or text encoder, for each UNet call."""
    clock = Clock(pipeline)
    total, specs = 0.0, specs_of([EQUAL_STEPS] * OWN_SHARE_PICTURES, seed=9000)
    for spec in specs:
        begin = time.perf_counter()
        by_engine(engine, [spec])
        total += time.perf_counter() - begin
    own, calls = total - clock.seconds, clock.calls["unet"]
    print(
        f"own share at one picture: {own / calls * 1e3:.3f} ms of {total / calls * 1e3:.2f} ms a "
        f"step, {own / total:.2%} (asked: under 2 %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="torch's; 0: its own choice")
    parser.add_argument(
        "--bare-layout",
        choices=("contiguous", "channels_last"),
        default="contiguous",
        help="memory of the bare pipeline; contiguous is what diffusers gives, sdq uses the other",
    )
    parser.add_argument("--at-once", type=int, default=0, help="active set; 0: the device's")
    options = parser.parse_args()
    bare, (ours, device) = load(options.threads, options.bare_layout)
    import torch

    from sdq.worker.engine import Engine
    from sdq.worker.flight import Capacity
    from sdq.worker.holding import Holding
    from sdq.worker.stepping import engine_pipeline

    capacity = Capacity(options.at_once, options.at_once * 128 * 128) if options.at_once else None
    engine = Engine([Holding("shapes", lambda: engine_pipeline(ours, device, capacity))])
    engine.start()
    engine.wait_ready()
    print(f"machine: {machine()}; torch threads {torch.get_num_threads()}")
    print(
        f"load average {os.getloadavg()[0]:.2f}; shapes 128 × 128, {options.pictures} pictures; "
        f"bare pipeline {options.bare_layout}, active set {engine.at_once}"
    )
    by_engine(engine, specs_of([2] * 8, seed=0))  # warm
    size = best_batch(bare, options.pictures)
    equal = [EQUAL_STEPS] * options.pictures
    mixed = [MIXED_STEPS[(5 * n) % len(MIXED_STEPS)] for n in range(options.pictures)]
    compare("equal", equal, options.rounds, bare, engine, size)
    compare("mixed", mixed, options.rounds, bare, engine, size)
    own_share(ours, engine)
    engine.close()
    print(f"load average at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
