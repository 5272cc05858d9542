"""The forms of `sdq.worker.layouts`, and small models of the same form."""

from collections.abc import Mapping
from typing import Any

from sdq.worker.layouts.figures import LAYOUTS as LAYOUTS
from sdq.worker.layouts.figures import PUBLISHED_PARAMETERS as PUBLISHED_PARAMETERS
from sdq.worker.layouts.figures import REAL_SIZES as REAL_SIZES
from sdq.worker.layouts.figures import TOKENS as TOKENS
from sdq.worker.layouts.figures import Layout as Layout
from sdq.worker.layouts.figures import Part as Part
from sdq.worker.layouts.figures import Sizes as Sizes
from sdq.worker.layouts.figures import parts_of as parts_of

_SMALL_CLIP: Mapping[str, Any] = {"clip_hidden": 32, "clip_layers": 2, "clip_heads": 2}
_SMALL_VAE_CHANNELS = (32, 32, 32, 32)

SMALL_SIZES: Mapping[Layout, Sizes] = {
    "sd1": Sizes((32, 32, 64, 64), 2, _SMALL_VAE_CHANNELS, **_SMALL_CLIP, vocabulary=600),
    "sdxl": Sizes(
        (32, 64, 64),
        (1, 2, 2),
        _SMALL_VAE_CHANNELS,
        **_SMALL_CLIP,
        vocabulary=600,
        big_hidden=64,
        # Eleven: diffusers knows a checkpoint of SDXL by the tenth layer of this encoder.
        big_layers=11,
        big_heads=2,
        transformer_layers=(1, 1, 2),
        time_channels=8,
    ),
}
"""The same form in a few megabytes, for tests."""
