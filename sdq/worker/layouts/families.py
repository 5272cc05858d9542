"""Which family a checkpoint is of, told by the names of its weights."""

import json
import struct
from pathlib import Path

from sdq.errors import ModelError
from sdq.worker.layouts.figures import Layout

MAX_HEADER_BYTES = 100 * 1024 * 1024
"""As the format's own readers allow (github.com/huggingface/safetensors)."""

_UNET = "model.diffusion_model."
_MARKS: tuple[tuple[str, Layout], ...] = (
    ("conditioner.embedders.1.model.", "sdxl"),
    ("cond_stage_model.transformer.", "sd1"),
)
_KNOWN = (
    "checkpoints of SD 1.x and SDXL are known; others need the layout of diffusers, as a folder"
)


def layout_of(checkpoint: Path) -> Layout:
    """The family of a ``.safetensors`` checkpoint. Reads its header only.

    Raises `ModelError` when it is broken, holds no UNet, or is of a family that is not known
    here; `OSError` when it cannot be read.
    """
    with checkpoint.open("rb") as reader:
        start = reader.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return layout_in(checkpoint.name, start + reader.read(min(length, MAX_HEADER_BYTES)))


def layout_in(name: str, head: bytes) -> Layout:
    """The same from the beginning of a file, at least its header. Raises `ModelError`."""
    names = names_in(name, head)
    if not any(tensor.startswith(_UNET) for tensor in names):
        raise ModelError(f"{name} holds no UNet: it is no whole checkpoint", hint=_KNOWN)
    for mark, layout in _MARKS:
        if any(tensor.startswith(mark) for tensor in names):
            return layout
    raise ModelError(f"{name} is a checkpoint of an unknown family", hint=_KNOWN)


def names_in(name: str, head: bytes) -> list[str]:
    """The tensors that a safetensors file says it holds. Raises `ModelError` when it is none."""
    (length,) = struct.unpack("<Q", head[:8]) if len(head) >= 8 else (0,)
    if not 2 <= length <= MAX_HEADER_BYTES or len(head) < 8 + length:
        raise _broken(name)
    try:
        found = json.loads(head[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise _broken(name) from error
    if not isinstance(found, dict):
        raise _broken(name)
    return [tensor for tensor in found if tensor != "__metadata__"]


def _broken(name: str) -> ModelError:
    return ModelError(
        f"{name} is no safetensors file", hint="`sdq worker install` fetches a model's files again"
    )
