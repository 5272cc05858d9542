"""What a LoRA costs: turns of the built-in model that never met one, with one in memory but not in
use, with one in use, and with two sets that take turns.

Each way has its turn in every round, one after the other: the median of all rounds, and the
quickest, which other programs disturb least. The LoRA changes all attention layers of UNet and text
encoder; its numbers are random.

    python bench/loras.py [--rounds 40] [--pictures 1] [--rank 16]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from drawing import folder_of, in_a_thread, load_ours, model_of, specs_of
from measure import machine

from sdq.spec import ImageSpec, Lora

STEPS = 100
SWITCHES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=1, help="in each turn")
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    print(f"machine: {machine()}; load average {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(prefix="sdq-loras-") as folder:
        in_a_thread(lambda: measure(Path(folder), options.rounds, options.pictures, options.rank))
    print(f"load average at the end {os.getloadavg()[0]:.2f}")


def measure(folder: Path, rounds: int, pictures: int, rank: int) -> None:
    from sdq.worker import devices
    from sdq.worker.lora_store import lora_path
    from sdq.worker.stepping import SteppingPipeline

    device, model = devices.choose("cpu"), model_of("shapes", 0)

    def loaded() -> Any:
        return load_ours(model, folder_of(model.name), device)

    first, second = loras_of(loaded(), folder, rank)
    never = SteppingPipeline(loaded(), device)
    met = SteppingPipeline(loaded(), device, find=lambda lora: lora_path(folder, lora))
    spec = specs_of(model, [STEPS], seed=0)[0]
    began = time.perf_counter()
    met.begin(with_loras(spec, first), lambda step, steps: None)
    print(f"to load one and to encode a prompt with it: {time.perf_counter() - began:.3f} s")
    ways: dict[str, Callable[[], object]] = {
        "no LoRA was ever loaded": turns_of(never, [spec], pictures),
        "one is loaded, none in use": turns_of(met, [spec], pictures),
        "one in use": turns_of(met, [with_loras(spec, first)], pictures),
        "two in use": turns_of(met, [with_loras(spec, first, second)], pictures),
        "by turns: none, one, the other": turns_of(
            met, [spec, with_loras(spec, first), with_loras(spec, second)], pictures
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, turn in ways.items():
            took = timed(turn)
            if number >= 2:
                seconds[name].append(took)
    first_times = next(iter(seconds.values()))
    for name, times in seconds.items():
        median, least = statistics.median(times), min(times)
        print(
            f"{name + ':':34}{median * 1e3:8.2f} ms a turn, "
            f"{median / statistics.median(first_times):.3f} of the first; the quickest "
            f"{least * 1e3:.2f} ms, {least / min(first_times):.3f}"
        )
    switches(met, [spec, with_loras(spec, first), with_loras(spec, second)])


def loras_of(pipeline: Any, folder: Path, rank: int) -> tuple[Lora, Lora]:
    from sdq.testing.tiny_loras import write_lora

    first, second = (
        write_lora(pipeline, folder, seed=seed, rank=rank, alpha=rank, strength=0.01)
        for seed in (1, 2)
    )
    return first, second


def with_loras(spec: ImageSpec, *loras: Lora) -> ImageSpec:
    return msgspec.structs.replace(spec, loras=loras)


def turns_of(pipeline: Any, specs: Sequence[ImageSpec], pictures: int) -> Callable[[], object]:
    """One turn of so many pictures of the next spec; they begin anew when they are finished."""
    groups: list[list[Any]] = [[] for _ in specs]
    state = {"turn": 0}

    def turn() -> None:
        number = state["turn"] = (state["turn"] + 1) % len(specs)
        flights = groups[number]
        if not flights or flights[0].is_finished:
            flights[:] = [
                pipeline.begin(specs[number], lambda step, steps: None) for _ in range(pictures)
            ]
        faults = pipeline.step(flights)
        assert not any(faults), faults

    return turn


def timed(act: Callable[[], object]) -> float:
    """Seconds of the second of two: what was begun anew or switched in the first is not counted,
    but for ways that switch at every turn."""
    act()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def switches(pipeline: Any, specs: Sequence[ImageSpec]) -> None:
    """From one set to the next, without any drawing."""
    loras = pipeline._loras  # nothing else tells this apart from drawing
    began = time.perf_counter()
    for number in range(SWITCHES):
        loras.use(specs[number % len(specs)])
    each = (time.perf_counter() - began) / SWITCHES
    print(f"{'a switch from set to set:':34}{each * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
