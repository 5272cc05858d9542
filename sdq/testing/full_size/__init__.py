"""Stable Diffusion in its real size without its weights: what a worker has to carry, made here.

::

    built = build("sd1", folder)                     # diffusers' own layout, 2.1 GB in halves
    file = build_single_file("sd1", folder / "x.safetensors")     # one checkpoint, the same weights
    text = catalog_text("big", "sd1", folder, ["unet/config.json", …], steps=2)

Such a model draws noise, by the same code and at the same cost as the published one. The same
layout and seed always have the same weights, in both forms. Nothing is downloaded.
"""

from sdq.testing.full_size.build import Built, build, build_single_file, files_of
from sdq.testing.full_size.entry import catalog_text
from sdq.testing.full_size.layouts import LAYOUTS, PUBLISHED_PARAMETERS, Layout
from sdq.testing.full_size.weights import Dtype

__all__ = [
    "LAYOUTS",
    "PUBLISHED_PARAMETERS",
    "Built",
    "Dtype",
    "Layout",
    "build",
    "build_single_file",
    "catalog_text",
    "files_of",
]
