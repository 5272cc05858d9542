"""The pictures as the UNet sees them: latents, computed once and kept in a file."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from training.dataset import Sample, training
from training.loop import load, save
from training.vae import to_tensor

SEED = 12
CHUNK = 50

Drawer: TypeAlias = Callable[[random.Random], Sample]
"""Gives the next picture of a data set."""


@dataclass(frozen=True)
class Latents:
    """Latents scaled to a mean square of one, their captions, and the scale."""

    latents: torch.Tensor
    captions: list[str]
    scale: float


@torch.no_grad()
def _encode(
    vae: Any, count: int, seed: int, report: Callable[[str], None], draw: Drawer
) -> dict[str, Any]:
    rng = random.Random(seed)
    captions: list[str] = []
    chunks: list[torch.Tensor] = []
    while len(captions) < count:
        samples = [draw(rng) for _ in range(min(CHUNK, count - len(captions)))]
        captions += [item.caption for item in samples]
        with torch.autocast("cpu", torch.bfloat16):
            encoded = vae.encode(to_tensor([item.picture for item in samples])).latents
        chunks.append(encoded.half())
        if len(captions) % 2000 == 0:
            report(f"latents: {len(captions)} of {count}")
    return {"latents": torch.cat(chunks), "captions": captions}


def cached(
    vae: Any,
    count: int,
    path: Path,
    report: Callable[[str], None],
    seed: int = SEED,
    draw: Drawer = training,
) -> Latents:
    """The latents of `count` pictures that `draw` gives, from the file if it is there."""
    found = load(path)
    if found is None:
        found = _encode(vae, count, seed, report, draw)
        save(path, found)
    latents = found["latents"].float()
    scale = 1 / float(latents.square().mean().sqrt())
    return Latents(latents * scale, found["captions"], scale)
