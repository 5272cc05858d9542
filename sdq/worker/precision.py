"""Halves or full numbers on a CPU: some have instructions for bfloat16, most do not."""

import time
from collections.abc import Callable, Mapping
from statistics import geometric_mean
from typing import Any

from PIL import ImageChops, ImageStat
from PIL.Image import Image

LEAST_GAIN = 0.1
"""So much quicker must halves be to be worth their rounding."""

MOST_DIFFERENCE = 8.0
"""Of 255, on average over a picture: how far one drawn in halves may be from one in full."""

COMPARED = (1, 8)
"""Pictures in the turns that are compared: alone, and in good company."""

_PROBES = 8


def halves_pay_here() -> bool:
    """Whether this CPU is quicker with bfloat16 at what a UNet does most; milliseconds.

    Where the instructions are missing, halves take twice to ten times as long: that is seen
    here, before a model is loaded for it. Imports torch.
    """
    import torch

    full, half = _work(torch.float32), _work(torch.bfloat16)
    with torch.inference_mode():
        times = [(_seconds(full), _seconds(half)) for _ in range(_PROBES)]
    return pays(min(half for _, half in times) / min(full for full, _ in times))


def pays(ratio: float) -> bool:
    """Whether halves, at this share of the time of full numbers, are quicker by enough."""
    return ratio <= 1 - LEAST_GAIN


def prefers_halves(
    half_turns: Mapping[int, float], full_turns: Mapping[int, float], difference: float
) -> bool:
    """The decision, on seconds of turns by their number of pictures and `difference_of` both
    pictures. Of the turns that both have measured, the geometric mean of their ratios counts."""
    both = [size for size in COMPARED if size in half_turns and size in full_turns]
    if not both or difference > MOST_DIFFERENCE:
        return False
    return pays(geometric_mean(half_turns[size] / full_turns[size] for size in both))


def difference_of(one: Image, other: Image) -> float:
    """Mean absolute difference of all bands of two RGB pictures of one size, of 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def _work(dtype: Any) -> Callable[[], object]:
    """A convolution and a product of matrices, of the sizes of a small UNet's."""
    import torch

    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(dtype=dtype)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.ones(2, 64, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    rows = torch.ones(2, 256, 256, dtype=dtype)
    return lambda: (layer(pixels), rows @ rows)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
