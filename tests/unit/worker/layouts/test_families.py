"""Which family a checkpoint is of."""

import json
import struct
from pathlib import Path

import pytest

from sdq.errors import ModelError
from sdq.worker.layouts.families import layout_of

UNET = "model.diffusion_model.input_blocks.0.0.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.position_ids"
BIG = "conditioner.embedders.1.model.ln_final.weight"


def checkpoint(path: Path, *names: str) -> Path:
    header = json.dumps(
        {"__metadata__": {"x": "y"}}
        | {name: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for name in names}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_families_are_told_by_their_text_encoders(tmp_path: Path) -> None:
    assert layout_of(checkpoint(tmp_path / "a.safetensors", UNET, CLIP)) == "sd1"
    both = ("conditioner.embedders.0.transformer.x", BIG)
    assert layout_of(checkpoint(tmp_path / "b.safetensors", UNET, *both)) == "sdxl"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((UNET, "cond_stage_model.model.ln_final.weight"), "unknown family"),
        ((CLIP,), "holds no UNet"),
        ((), "holds no UNet"),
    ],
)
def test_what_is_not_known_is_told(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        layout_of(checkpoint(tmp_path / "a.safetensors", *names))
    assert "SD 1.x and SDXL" in caught.value.hint
