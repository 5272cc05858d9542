"""How a model is drawn with here: what was asked for, and what was measured at install."""

from typing import Literal

import msgspec

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
    dtype: Dtype
    offload: Offload
    canary_seconds: float
    load_seconds: float
    weights_bytes: int
    peak_bytes: int  # of the device's memory while drawing; 0: nobody can say
    at_once: int  # pictures of the model's default size in one turn, the largest useful number
    area_pixels: int  # of all of them together
    turn_seconds: dict[int, float]  # by the number of pictures of the default size in a turn

    @property
    def capacity(self) -> Capacity:
        """Of a turn."""
        return Capacity(pictures=self.at_once, area_pixels=self.area_pixels)
