"""What a LoRA's file may say of itself before a library reads it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sdq.errors import GenerationFailed
from sdq.worker.lora_files import MAX_TENSORS, NOTES, layers_in

LAYER = "unet.mid_block.attentions.0.proj_in"
HALVES = {f"{LAYER}.lora_A.weight": torch.zeros(2, 8), f"{LAYER}.lora_B.weight": torch.zeros(8, 2)}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file of tensors, with notes as diffusers writes them."""

    def made(tensors: dict[str, torch.Tensor] = HALVES, **notes: Any) -> Path:
        path = tmp_path / "lora.safetensors"
        texts = {NOTES: json.dumps({f"unet.{name}": value for name, value in notes.items()})}
        save_file(tensors, path, metadata=texts if notes else None)
        return path

    return made


def test_layers_are_counted(write: Write) -> None:
    assert layers_in(write(), "x") == 1


@pytest.mark.parametrize("half", ["lora_down.weight", "lora.down.weight", "to_q_lora.down.weight"])
def test_in_the_words_of_other_programs_too(write: Write, half: str) -> None:
    assert layers_in(write({f"lora_unet_mid.{half}": torch.zeros(2, 8)}), "x") == 1


@pytest.mark.parametrize(
    "notes",
    [
        {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        {"rank_pattern": {"^mid_block.to_q": 2}, "alpha_pattern": {}},
        {"target_modules": ["to_q", "to_out.0"], "use_rslora": True, "peft_version": "0.1"},
        {"megatron_core": "megatron.core", "megatron_config": None, "something_new": False},
    ],
)
def test_the_numbers_of_a_lora_may_be_noted(write: Write, notes: dict[str, Any]) -> None:
    assert layers_in(write(**notes), "x") == 1


@pytest.mark.parametrize(
    "notes",
    [
        {"megatron_config": {"a": 1}},
        {"megatron_core": "antigravity"},
        {"target_modules": "(a+)+$"},
        {"rank_pattern": {"(a+)+$": 2}},
        {"exclude_modules": ["(a|a)*b"]},
        {"init_lora_weights": "eva"},
        {"modules_to_save": ["conv_in"]},
        {"bias": "all"},
        {"r": "many"},
        {"something_new": 1},
    ],
)
def test_other_settings_are_refused(write: Write, notes: dict[str, Any]) -> None:
    with pytest.raises(GenerationFailed, match=r"LoRA x cannot .* its notes ask for") as caught:
        layers_in(write(**notes), "x")
    assert next(iter(notes)) in caught.value.message


def test_notes_that_are_none(write: Write) -> None:
    path = write()
    save_file(HALVES, path, metadata={NOTES: "[1"})
    with pytest.raises(GenerationFailed, match="its notes cannot be read"):
        layers_in(path, "x")


def test_names_that_would_be_patterns(write: Write) -> None:
    with pytest.raises(GenerationFailed, match="a tensor of the name"):
        layers_in(write({"unet.(a+)+$.lora_A.weight": torch.zeros(1)}), "x")


def test_no_more_tensors_than_a_lora_has(write: Write) -> None:
    many = {f"unet.{number}.lora_A.weight": torch.zeros(0) for number in range(MAX_TENSORS + 1)}
    with pytest.raises(GenerationFailed, match=f"{MAX_TENSORS + 1} tensors"):
        layers_in(write(many), "x")


@pytest.mark.parametrize("data", [b"", b"\0" * 50, b"\xff" * 50, b"\x10" + b"\0" * 7 + b"[" * 16])
def test_what_is_no_safetensors_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(data)
    with pytest.raises(GenerationFailed, match="no safetensors file"):
        layers_in(path, "x")
