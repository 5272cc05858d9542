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
    names = names_of(checkpoint)
    if not any(name.startswith(_UNET) for name in names):
        raise ModelError(f"{checkpoint.name} holds no UNet: it is no whole checkpoint", hint=_KNOWN)
    for mark, layout in _MARKS:
        if any(name.startswith(mark) for name in names):
            return layout
    raise ModelError(f"{checkpoint.name} is a checkpoint of an unknown family", hint=_KNOWN)


def names_of(checkpoint: Path) -> list[str]:
    """The tensors in a safetensors file. Raises `ModelError` when it is none, and `OSError`."""
    with checkpoint.open("rb") as reader:
        start = reader.read(8)
        (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise _broken(checkpoint)
        header = reader.read(length)
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _broken(checkpoint) from error
    if not isinstance(found, dict):
        raise _broken(checkpoint)
    return [name for name in found if name != "__metadata__"]


def _broken(checkpoint: Path) -> ModelError:
    return ModelError(
        f"{checkpoint.name} is no safetensors file",
        hint="`sdq worker install` fetches it again",
    )
