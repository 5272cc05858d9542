"""Which device draws, and with which numbers."""

import os
import platform
from typing import Any

import msgspec

from sdq.errors import UsageError
from sdq.worker.flight import Capacity

ACCELERATORS = ("cuda", "mps", "xpu")
"""Tried in this order by ``auto``, before the CPU."""

DTYPES = ("float32", "bfloat16", "float16")
"""As torch spells them. A device that cannot draw with one fails the proof at install."""

CPU_CAPACITY = Capacity(pictures=8, area_pixels=8 * 128 * 128)
"""Stacking feeds a CPU's cores better while pictures are small: with the built-in model a step
of eight costs half as much for each of them as a step of one. From about 256 × 256 on it gives
nothing, and memory that runs out there ends the process instead of the turn."""

CPU_DECODE_CAPACITY = Capacity(pictures=2, area_pixels=2 * 128 * 128)

ACCELERATOR_CAPACITY = Capacity(pictures=8, area_pixels=8 * 1024 * 1024)
"""Most of the gain is there at eight; a device that is too small for it says so and is believed."""

ACCELERATOR_DECODE_CAPACITY = Capacity(pictures=4, area_pixels=2 * 1024 * 1024)


class Device(msgspec.Struct, frozen=True):
    """``name`` and ``dtype`` as torch spells them, such as ``cuda:1`` and ``float16``."""

    name: str
    dtype: str
    label: str

    def describe(self) -> str:
        """For people: ``NVIDIA H100``, ``cpu (x86_64, 2 threads)``."""
        return self.label


def choose(device: str = "auto", dtype: str = "auto") -> Device:
    """The asked device: ``auto``, ``cpu``, ``cuda``, ``mps``, ``xpu`` or one by number, ``cuda:1``.

    ``dtype``: ``auto`` is half precision on accelerators and single on the CPU, where halves are
    slow or missing, unless an install has measured otherwise. Imports torch (seconds). Raises
    `UsageError` when the device is not there, or no device or dtype at all.
    """
    if dtype not in ("auto", *DTYPES):
        raise UsageError(
            f"{dtype!r} is no precision to draw with", hint=f"choose auto, {', '.join(DTYPES)}"
        )
    torch = _torch()
    kind, _, number = device.partition(":")
    if kind == "auto" and not number:
        kind = next((name for name in ACCELERATORS if _count(torch, name)), "cpu")
    elif kind not in (*ACCELERATORS, "cpu") or (":" in device and not number.isdecimal()):
        raise UsageError(
            f"{device!r} is no device",
            hint="choose auto, cpu, cuda, mps, xpu, or one by its number, as cuda:1",
        )
    found = 1 if kind == "cpu" else _count(torch, kind)
    if int(number or 0) >= found:
        raise UsageError(
            f"the device {device} is not there: torch finds {found} of the kind {kind}",
            hint=f"this computer has: {', '.join(available())}; `auto` takes the first",
        )
    # There is one CPU, known by its name alone.
    name = f"{kind}:{number}" if number and kind != "cpu" else kind
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "float16"
    return Device(name=name, dtype=dtype, label=_label(torch, kind, int(number or 0)))


def settle(device: Device) -> None:
    """Returns when the device has done all that it was handed; the CPU always has."""
    kind = device.name.partition(":")[0]
    if kind == "mps":
        _torch().mps.synchronize()
    elif kind != "cpu":
        getattr(_torch(), kind).synchronize(device.name)


def capacity_of(device: Device) -> Capacity:
    """How much is drawn at once there, before anything was measured."""
    return CPU_CAPACITY if device.name == "cpu" else ACCELERATOR_CAPACITY


def decode_capacity_of(device: Device) -> Capacity:
    """How much is decoded between two steps: little, the others wait meanwhile."""
    return CPU_DECODE_CAPACITY if device.name == "cpu" else ACCELERATOR_DECODE_CAPACITY


def available() -> list[str]:
    """The kinds of device that torch finds here, best first."""
    torch = _torch()
    return [*(name for name in ACCELERATORS if _count(torch, name)), "cpu"]


def _torch() -> Any:
    # Read when torch's OpenMP is loaded, so it must be set before. Threads that spin for long while
    # they wait make drawing on a CPU many times slower as soon as another process wants a core, and
    # `sdq up` has a server and a Redis beside the worker. Threads that do not spin at all take
    # twice as long when they are alone. A short spin is good at both: bench/neighbours.py.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"a worker needs torch, which cannot be imported: {error}",
            hint="install it with `pip install 'sdq[worker]'`",
        ) from error
    return torch


def _count(torch: Any, kind: str) -> int:
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    if module is None or not module.is_available():
        return 0
    return int(module.device_count())


def _label(torch: Any, kind: str, number: int) -> str:
    if kind == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({platform.machine()}, {threads} thread{'s' if threads != 1 else ''})"
    if kind == "mps":
        return f"mps ({platform.machine()})"
    return str(getattr(torch, kind).get_device_name(number))
