"""sdq's engine and diffusers' own ``__call__`` in turn, on the same modules in one process.

What differs between the two is sdq's own work, and nothing else: weights, layout and the number of
threads are the same; the threads of one end before the other begins (`drawing.in_a_thread`). For
`bench/full_size.py`, which runs it in a process of its own to see its memory.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from drawing import Model, call, engine_of, in_a_thread, load_ours, specs_of

from sdq.spec import ImageSpec

Drawn = tuple[Any, dict[str, float]]
"""The picture, and how long its steps and it as a whole took."""


class Setting(NamedTuple):
    model: Model
    folder: Path
    device: str
    dtype: str
    steps: int
    rounds: int
    threads: int


class Steps:
    """From the beginning of the first UNet call to the end of the last step."""

    def __init__(self, unet: Any, device_name: str) -> None:
        self._kind = device_name.partition(":")[0]
        self._begin = self._end = 0.0
        unet.register_forward_pre_hook(self._entered)

    def begin(self) -> None:
        self._begin = 0.0

    def _entered(self, unet: Any, arguments: Any) -> None:
        if not self._begin:
            self._begin = self._now()

    def told(self) -> None:
        self._end = self._now()

    @property
    def seconds(self) -> float:
        return self._end - self._begin

    def _now(self) -> float:
        import torch

        if self._kind != "cpu":  # it works on while Python is done
            getattr(torch, self._kind).synchronize()
        return time.perf_counter()


def peak_megabytes(pid: int | str = "self") -> float:
    """The most memory that a process had resident so far, as Linux counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("no VmHWM: this benchmark needs Linux")


def compare(setting: Setting) -> dict[str, Any]:
    """Loads, draws one picture of one step each to warm up, then a pair in each round."""
    from sdq.worker import devices

    device = devices.choose(setting.device, setting.dtype)
    import torch

    if setting.threads:
        torch.set_num_threads(setting.threads)
    model = setting.model
    begin = time.perf_counter()
    pipeline = in_a_thread(lambda: load_ours(model, setting.folder, device))
    found: dict[str, Any] = {
        "device": device.describe(),
        "dtype": device.dtype,
        "side": model.side,
        "load_seconds": time.perf_counter() - begin,
        "loaded_megabytes": peak_megabytes(),
    }
    steps = Steps(pipeline.unet, device.name)

    def bare(spec: ImageSpec) -> Drawn:
        return in_a_thread(lambda: _bare(pipeline, spec, steps))

    def ours(spec: ImageSpec) -> Drawn:
        with engine_of(pipeline, device, model, at_once=1) as engine:
            return _ours(engine, spec, steps)

    for spec in specs_of(model, [1], seed=1):
        bare(spec)
        ours(spec)
    pairs = [
        _pair({"bare": bare, "engine": ours}, spec, ours_first=bool(number % 2))
        for number, spec in enumerate(specs_of(model, [setting.steps] * setting.rounds, seed=10))
    ]
    found["pairs"] = pairs
    found["peak_megabytes"] = peak_megabytes()
    if device.name.startswith("cuda"):
        found["device_peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def _pair(
    ways: Mapping[str, Callable[[ImageSpec], "Drawn"]], spec: ImageSpec, *, ours_first: bool
) -> dict[str, float]:
    import numpy

    found: dict[str, float] = {}
    images = []
    for way in ("engine", "bare") if ours_first else ("bare", "engine"):
        image, seconds = ways[way](spec)
        images.append(numpy.asarray(image, dtype=numpy.int16))
        found |= {f"{way}_{name}": value for name, value in seconds.items()}
    return {**found, "difference": int(abs(images[0] - images[1]).max())}


def _bare(pipeline: Any, spec: ImageSpec, steps: Steps) -> Drawn:
    def on_step(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.told()
        return {}

    steps.begin()
    begin = time.perf_counter()
    image = call(pipeline, [spec], callback_on_step_end=on_step).images[0]
    return image, _seconds(spec, steps, time.perf_counter() - begin)


def _ours(engine: Any, spec: ImageSpec, steps: Steps) -> Drawn:
    def on_step(step: int, count: int) -> None:
        if step:
            steps.told()

    steps.begin()
    begin = time.perf_counter()
    future = engine.submit(spec, on_step=on_step, is_cancelled=lambda: False)
    image = future.result().image
    return image, _seconds(spec, steps, time.perf_counter() - begin)


def _seconds(spec: ImageSpec, steps: Steps, whole: float) -> dict[str, float]:
    return {"step_seconds": steps.seconds / spec.num_inference_steps, "picture_seconds": whole}
