"""Which family a checkpoint is of, told by the names of its weights."""

from collections.abc import Collection
from pathlib import Path

from sdq.errors import ModelError
from sdq.worker.layouts.figures import Layout
from sdq.worker.tensor_files import shapes_in, shapes_of

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
    return _layout(checkpoint.name, shapes_of(checkpoint))


def layout_in(name: str, head: bytes) -> Layout:
    """The same from the beginning of a file, at least its header. Raises `ModelError`."""
    return _layout(name, shapes_in(name, head))


def _layout(name: str, tensors: Collection[str]) -> Layout:
    if not any(tensor.startswith(_UNET) for tensor in tensors):
        raise ModelError(f"{name} holds no UNet: it is no whole checkpoint", hint=_KNOWN)
    for mark, layout in _MARKS:
        if any(tensor.startswith(mark) for tensor in tensors):
            return layout
    raise ModelError(f"{name} is a checkpoint of an unknown family", hint=_KNOWN)
