"""How a model is drawn with here: what was asked for, and what was measured at install."""

from typing import Literal

import msgspec

from sdq.config import WorkerSettings
from sdq.worker.devices import Device
from sdq.worker.flight import Capacity

Offload = Literal["auto", "none", "model", "sequential"]
"""Where weights rest that are not needed at the moment: ``none`` on the device, ``model`` a whole
part (UNet, VAE, text encoder) at a time in the computer's memory, ``sequential`` layer by layer."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""As torch spells them."""


class DrawOptions(msgspec.Struct, frozen=True):
    """What a person chose; ``auto`` leaves it to what is measured or found."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps, xpu
    dtype: Dtype = "auto"
    compile: bool = False
    offload: Offload = "auto"


class Profile(msgspec.Struct, frozen=True):
    """What was measured of one model on one device. It counts as long as options and device are
    the same."""

    options: DrawOptions  # as they were asked for
    device_name: str  # what became of them: cpu, cuda:1
    device_label: str  # the device itself: NVIDIA H100; cpu (x86_64, 2 threads)
    dtype: Dtype
    offload: Offload
    canary_seconds: float  # of the proof picture; on a slow device one of few steps
    load_seconds: float
    weights_bytes: int
    peak_bytes: int  # of the device's memory for weights and work; 0: nobody can say
    at_once: int  # pictures of the model's default size in one turn, the largest useful number
    area_pixels: int  # of all of them together
    turn_seconds: dict[int, float]  # by pictures of the default size in a turn; empty: not measured

    @property
    def capacity(self) -> Capacity:
        """Of a turn."""
        return Capacity(pictures=self.at_once, area_pixels=self.area_pixels)

    def step_seconds(self, pictures: int) -> float | None:
        """One picture's share of a turn with so many; ``None`` where it was not measured."""
        seconds = self.turn_seconds.get(pictures)
        return None if seconds is None else seconds / pictures

    def counts(self, options: DrawOptions, device: Device) -> bool:
        """Whether this was measured with these options on this device. A computer with other
        threads, or another graphics card under the same name, is another device."""
        found = (self.options, self.device_name, self.device_label)
        return found == (options, device.name, device.label)


class Plan(msgspec.Struct, frozen=True):
    """How a model is drawn with in this run."""

    device: Device
    offload: Offload
    compile: bool
    capacity: Capacity | None  # of a turn; None: what is known of such devices
    needs_bytes: int  # of the device's memory, weights and work together; 0: nobody knows
    is_measured: bool  # else `sdq worker install` would tell more


def options_of(settings: WorkerSettings) -> DrawOptions:
    """What the settings ask for. They were checked when they were read."""
    return msgspec.convert(
        {name: getattr(settings, name) for name in DrawOptions.__struct_fields__}, DrawOptions
    )


def plan_of(profile: Profile, options: DrawOptions, device: Device) -> Plan:
    """What was measured, where it counts; else the options and the device's defaults.

    ``device``: as `sdq.worker.devices.choose` gives it for these options.
    """
    if not profile.counts(options, device):
        return Plan(device, options.offload, options.compile, None, 0, is_measured=False)
    return Plan(
        device=msgspec.structs.replace(device, dtype=profile.dtype),
        offload=profile.offload,
        compile=options.compile,
        capacity=profile.capacity,
        needs_bytes=profile.peak_bytes or profile.weights_bytes,
        is_measured=True,
    )
