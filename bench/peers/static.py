"""What a static batch is: the built-in model in a server of its own, for both peers.

A call of a diffusers pipeline has one number of steps, so a batch that a framework collected is
drawn in groups of equal steps, largest batches first come first served. Everything else is as in
sdq's worker: weights, dtype, memory layout, threads, scheduler, generator on the CPU, and how hard
the PNG is compressed.
"""

import io
import os
from collections.abc import Sequence
from typing import Any


class StaticBatches:
    """The pipeline. ``draw`` is for one thread."""

    def __init__(self, dtype: str, threads: int) -> None:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as sdq's worker: bench/neighbours.py
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        import transformers
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging
        from sdq_shapes import folder

        for switch in (transformers.logging, logging):
            switch.set_verbosity_error()
            switch.disable_progress_bar()
        torch.set_num_threads(threads)
        self._torch = torch
        self._pipeline = DiffusionPipeline.from_pretrained(
            str(folder()), dtype=getattr(torch, dtype)
        )
        self._pipeline.set_progress_bar_config(disable=True)
        for part in (self._pipeline.unet, self._pipeline.vae):
            part.to(memory_format=torch.channels_last)

    def draw(self, wanted: Sequence[dict[str, Any]]) -> list[bytes]:
        """A PNG for each of ``prompt``, ``steps`` and ``seed``, in their order."""
        groups: dict[int, list[int]] = {}
        for place, one in enumerate(wanted):
            groups.setdefault(one["steps"], []).append(place)
        drawn: dict[int, bytes] = {}
        for steps, places in groups.items():
            images = self._call([wanted[place] for place in places], steps)
            drawn.update(zip(places, map(png, images), strict=True))
        return [drawn[place] for place in range(len(wanted))]

    def _call(self, group: Sequence[dict[str, Any]], steps: int) -> list[Any]:
        made = self._pipeline(
            [one["prompt"] for one in group],
            num_inference_steps=steps,
            guidance_scale=4.0,
            width=128,
            height=128,
            generator=[self._torch.Generator("cpu").manual_seed(one["seed"]) for one in group],
        )
        return list(made.images)


def png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
