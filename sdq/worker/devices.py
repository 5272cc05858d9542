"""Which device draws, and with which numbers."""

import os
import platform
from typing import Any

import msgspec

from sdq.errors import UsageError

ACCELERATORS = ("cuda", "mps", "xpu")
"""Tried in this order by ``auto``, before the CPU."""


class Device(msgspec.Struct, frozen=True):
    """``name`` and ``dtype`` as torch spells them, such as ``cuda:1`` and ``float16``."""

    name: str
    dtype: str
    label: str

    def describe(self) -> str:
        """For people: ``NVIDIA H100``, ``cpu (x86_64, 2 threads)``."""
        return self.label


def choose(device: str = "auto") -> Device:
    """The asked device: ``auto``, ``cpu``, ``cuda``, ``mps``, ``xpu`` or one by number, ``cuda:1``.

    Half precision on accelerators, single on the CPU, where halves are slow or missing.
    Imports torch (seconds). Raises `UsageError` when the device is not there.
    """
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
    name = f"{kind}:{number}" if number else kind
    dtype = "float32" if kind == "cpu" else "float16"
    return Device(name=name, dtype=dtype, label=_label(torch, kind, int(number or 0)))


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
