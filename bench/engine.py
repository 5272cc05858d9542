"""Pictures a second with all there is to do at once: one by one, in static batches, by the engine.

(a) the bare pipeline, one picture after the other; (b) the bare pipeline in static batches of
the best size; (c) sdq's engine, handed everything at once. Once with equal steps, once with
mixed ones, which a static batch cannot hold: it takes the oldest picture and, of those beside
it in a window as large as the engine's hand, those with as many steps. Rounds of a, b and c in
turn, so that the machine's drift cancels; whoever has drawn ends its threads before the next one
begins (`drawing.in_a_thread`). Then the engine at each size of the active set, and its own share
of a step.

    python bench/engine.py [--pictures 24] [--rounds 3] [--threads 0] [--at-once 0]
        [--active-sets 1,2,4,8,16] [--json FILE]
    python bench/engine.py --model sd1 --device cuda [--dtype float16] [--compile]
        [--compile-bare] [--steps 20] [--no-mixed]

``--model sd1`` and ``sdxl`` are the real architectures with random weights, built on first use
(2.1 and 6.9 GB below .cache/full-size); they need a GPU, or hours.
"""

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drawing import (
    Model,
    by_engine,
    call,
    engine_of,
    folder_of,
    in_a_thread,
    in_batches,
    load_bare,
    load_ours,
    model_of,
    one_by_one,
    rate,
    specs_of,
)
from measure import machine, spread

from sdq.spec import ImageSpec

EQUAL_STEPS = 20
MIXED_SHARES = (0.5, 0.7, 0.9, 1.1, 1.3, 1.5)  # of the equal steps: as many on average
BATCHES = (2, 4, 8, 16)
OWN_SHARE_PICTURES = 6


def bare_rate(act: Callable[[], None], pictures: int) -> float:
    return in_a_thread(lambda: rate(act, pictures))


def best_batch(pipeline: Any, model: Model, pictures: int, steps: int) -> int:
    specs = specs_of(model, [max(1, steps // 2)] * max(pictures, max(BATCHES)), seed=500)
    rates = {
        size: max(
            in_a_thread(lambda s=size: rate(lambda: call(pipeline, specs[:s]), s)) for _ in range(2)
        )
        for size in BATCHES
        if size <= pictures
    }
    print("static batches:", ", ".join(f"{size}: {per:.2f}/s" for size, per in rates.items()))
    return max(rates, key=lambda size: rates[size])


def compare(
    name: str,
    model: Model,
    steps: Sequence[int],
    rounds: int,
    bare: Any,
    engine_rate: Callable[[Sequence[ImageSpec]], float],
    at_once: int,
    size: int,
) -> dict[str, Any]:
    from sdq.worker.worker import in_hand

    found: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    window = max(size, in_hand(at_once))
    for number in range(rounds):
        specs = specs_of(model, steps, seed=1000 * number)
        found["a"].append(bare_rate(lambda s=specs: one_by_one(bare, s), len(specs)))
        found["b"].append(bare_rate(lambda s=specs: in_batches(bare, s, size, window), len(specs)))
        found["c"].append(engine_rate(specs))
    a, b, c = (statistics.median(found[way]) for way in "abc")
    print(f"{name} steps, pictures a second:")
    print(f"  (a) one by one:           {spread(found['a'], '/s', 1)}")
    print(f"  (b) batches of at most {size}: {spread(found['b'], '/s', 1)}")
    print(f"  (c) sdq's engine:         {spread(found['c'], '/s', 1)}")
    print(f"  c/a {c / a:.2f}   c/b {c / b:.2f}", flush=True)
    return {"rates": found, "c_to_a": c / a, "c_to_b": c / b}


def by_active_set(
    model: Model, sets: Sequence[int], steps: int, rounds: int, bare: Any, ours: Any, device: Any
) -> dict[str, Any]:
    """The engine with each active set beside the bare pipeline one by one, and in batches of as
    many. As many pictures each as the largest set, so that every set is full to the end."""
    count = max(sets)
    for size in sets:  # once before the clock runs: what is compiled or chosen for a new size
        warm = specs_of(model, [2] * size, seed=19_000)
        in_a_thread(lambda n=size, w=warm: in_batches(bare, w, n, n))
        with engine_of(ours, device, model, at_once=size) as engine:
            by_engine(engine, warm)
    alone: list[float] = []
    batched: dict[int, list[float]] = {size: [] for size in sets}
    engines: dict[int, list[float]] = {size: [] for size in sets}
    for number in range(rounds):
        specs = specs_of(model, [steps] * count, seed=20_000 + 1000 * number)
        alone.append(bare_rate(lambda s=specs: one_by_one(bare, s), count))
        for size in sets:
            whole = specs[: count - count % size]
            act = lambda n=size, s=whole: in_batches(bare, s, n, n)  # noqa: E731
            batched[size].append(bare_rate(act, len(whole)))
            with engine_of(ours, device, model, at_once=size) as engine:
                engines[size].append(rate(lambda e=engine, s=whole: by_engine(e, s), len(whole)))
    a = statistics.median(alone)
    print(f"by active set, {steps} steps, pictures a second; (a) one by one: {a:.3f}")
    print("  active set   (b) batched   (c) engine    c/a    c/b")
    rows = []
    for size in sets:
        b, c = statistics.median(batched[size]), statistics.median(engines[size])
        print(f"  {size:>10}   {b:>11.3f}   {c:>10.3f}   {c / a:.2f}   {c / b:.2f}", flush=True)
        rows.append({"active_set": size, "batched": b, "engine": c, "c_to_a": c / a})
    return {"one_by_one": a, "steps": steps, "rows": rows}


class Clock:
    """Time inside the model's parts. On an accelerator each call waits for its end."""

    def __init__(self, pipeline: Any, device_name: str) -> None:
        self.seconds = 0.0
        self.calls: Counter[str] = Counter()
        self._device_name = device_name
        for part, method in (
            ("unet", "forward"),
            ("vae", "decode"),
            ("text_encoder", "forward"),
            ("text_encoder_2", "forward"),
        ):
            owner = getattr(pipeline, part, None)
            if owner is not None:
                setattr(owner, method, self._timed(part, getattr(owner, method)))

    def _timed(self, part: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                made = act(*arguments, **named)
                wait_for(self._device_name)
                return made
            finally:
                self.seconds += time.perf_counter() - begin
                self.calls[part] += 1

        return timed


def wait_for(device_name: str) -> None:
    """Until an accelerator has done all that it was handed."""
    import torch

    kind = device_name.partition(":")[0]
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def own_share(pipeline: Any, engine: Any, model: Model, steps: int, device: Any) -> dict[str, Any]:
    """With one picture at a time: what is not UNet, VAE or text encoder, for each UNet call."""
    clock = Clock(pipeline, device.name)
    total, specs = 0.0, specs_of(model, [steps] * OWN_SHARE_PICTURES, seed=9000)
    for spec in specs:
        begin = time.perf_counter()
        by_engine(engine, [spec])
        total += time.perf_counter() - begin
    own, calls = total - clock.seconds, clock.calls["unet"]
    print(
        f"own share at one picture: {own / calls * 1e3:.3f} ms of {total / calls * 1e3:.2f} ms a "
        f"step, {own / total:.2%} (asked: under 2 %)"
    )
    return {"own_seconds": own / calls, "step_seconds": total / calls, "share": own / total}


def main() -> None:
    options = arguments()
    from sdq.worker import devices

    device = devices.choose(options.device, options.dtype)
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    model = model_of(options.model, options.side)
    folder = folder_of(model.name)
    bare = in_a_thread(lambda: load_bare(model, folder, device))
    ours = in_a_thread(lambda: load_ours(model, folder, device, compile=options.compile))
    if options.bare_layout == "channels_last":
        from sdq.worker import pipelines

        bare = pipelines.channels_last(bare, device)
    if options.compile_bare:
        bare.unet.compile()
    found: dict[str, Any] = vars(options) | {
        "machine": machine(),
        "device": device.describe(),
        "dtype": device.dtype,
        "side": model.side,
        "threads": torch.get_num_threads(),
    }
    print(f"machine: {machine()}; torch threads {torch.get_num_threads()}")
    print(
        f"device: {device.describe()}, {device.dtype}; compiled: "
        f"sdq {options.compile}, bare {options.compile_bare}"
    )
    print(
        f"load average {os.getloadavg()[0]:.2f}; {model.name} {model.side} × {model.side}, "
        f"{options.pictures} pictures; bare pipeline {options.bare_layout}",
        flush=True,
    )
    measure(options, model, device, bare, ours, found)
    print(f"load average at the end {os.getloadavg()[0]:.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, default=str) + "\n", "utf-8")


def measure(
    options: argparse.Namespace,
    model: Model,
    device: Any,
    bare: Any,
    ours: Any,
    found: dict[str, Any],
) -> None:
    steps, sets = options.steps, options.active_sets
    with engine_of(ours, device, model, options.at_once) as engine:
        at_once = engine.at_once
        by_engine(engine, specs_of(model, [2] * 8, seed=0))  # warm
    print(f"active set {at_once}")

    def engine_rate(specs: Sequence[ImageSpec]) -> float:
        with engine_of(ours, device, model, options.at_once) as engine:
            return rate(lambda: by_engine(engine, specs), len(specs))

    size = best_batch(bare, model, options.pictures, steps)
    ways = (options.rounds, bare, engine_rate, at_once, size)
    equal = [steps] * options.pictures
    found["equal"] = compare("equal", model, equal, *ways)
    if not options.no_mixed:
        shares = [MIXED_SHARES[(5 * n) % len(MIXED_SHARES)] for n in range(options.pictures)]
        mixed = [max(1, round(share * steps)) for share in shares]
        found["mixed"] = compare("mixed", model, mixed, *ways)
    if sets:
        found["active_sets"] = by_active_set(model, sets, steps, options.rounds, bare, ours, device)
    if options.compile:  # 0: it could not be compiled, and a warning said why
        found["compiled_calls"] = getattr(ours.unet.forward, "calls", 0)
        print(f"turns that went through the compiled UNet: {found['compiled_calls']}")
    with engine_of(ours, device, model, options.at_once) as engine:
        found["own_share"] = own_share(ours, engine, model, steps, device)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("shapes", "sd1", "sdxl"), default="shapes")
    parser.add_argument("--side", type=int, default=0, help="of a picture; 0: the model's own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, xpu or auto")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto")
    parser.add_argument("--compile", action="store_true", help="sdq's UNet")
    parser.add_argument("--compile-bare", action="store_true", help="the bare pipeline's too")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--steps", type=int, default=EQUAL_STEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="torch's; 0: its own choice")
    parser.add_argument(
        "--bare-layout",
        choices=("contiguous", "channels_last"),
        default="contiguous",
        help="memory of the bare pipeline; contiguous is what diffusers gives, sdq uses the other",
    )
    parser.add_argument("--at-once", type=int, default=0, help="active set; 0: the device's")
    parser.add_argument("--no-mixed", action="store_true", help="leave the mixed steps out")
    parser.add_argument(
        "--active-sets",
        type=lambda text: [int(size) for size in text.split(",") if size],
        default=[1, 2, 4, 8, 16],
        help="sizes to try one after the other; '' for none",
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
