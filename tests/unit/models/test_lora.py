"""The neon LoRA: its pictures, its training, and what the shipped file changes."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sdq_shapes
import torch
from evaluate import Settings
from evaluation import lora as measured
from evaluation.judge import judge
from evaluation.prompts import compose
from safetensors.torch import load_file
from training import loop
from training.dataset import held_out, sample
from training.latents import Latents
from training.lora import LoraTrainer
from training.neon import NeonPage, neon
from training.page import LARGE
from training.palette import COLOURS
from training.shapes import Spot, draw_shape
from training.tokenizer import build
from training.train import DenoiserSettings, DenoiserTrainer
from training.truth import Thing, Truth

SMALL = DenoiserSettings(
    widths=(8, 16, 16), text_width=16, text_layers=1, heads=2, groups=4, batch=4
)
LOADED = Settings(sdq_shapes.folder(), 12, 4.0, "ddim")


def quiet(_line: str) -> None:
    """No progress lines."""


def small_pipeline() -> Any:
    """What the trainer takes of a pipeline, in a very small size."""
    words = build(["red", "blue", "circle"], 8)
    latents = torch.zeros(1, 4, 8, 8)
    made = DenoiserTrainer(Latents(latents, ["red circle"], 1.0), words, SMALL)
    # A new UNet's last layer is zero and lets nothing through to learn from.
    torch.nn.init.constant_(made.unet.conv_out.weight, 0.02)
    return SimpleNamespace(tokenizer=words, unet=made.unet, text_encoder=made.text)


def trainer(pipeline: Any) -> LoraTrainer:
    """Ten pictures: six steps of four go through more than two rounds."""
    latents = torch.randn(10, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return LoraTrainer(Latents(latents, ["red circle", "blue circle"] * 5, 1.0), pipeline, SMALL)


def test_neon_pictures_say_and_place_the_same() -> None:
    plain, styled = random.Random(3), random.Random(3)
    asked = right = 0
    for _ in range(50):
        one, two = sample(plain), sample(styled, NeonPage)
        assert (one.caption, one.truth) == (two.caption, two.truth)
        if two.truth.kind == "one" and two.truth.things[0].colour != "black":
            verdict = judge(two.picture, two.truth)
            asked += 1
            right += verdict.colour and verdict.place is not False
            assert measured.background_brightness(two.picture) < 25
    # A large ring has a line on either side, which the judge takes for two objects.
    assert asked > 10
    assert right >= asked - 1


def test_neon_draws_outlines() -> None:
    page = NeonPage()
    behind = COLOURS["yellow"]
    spot = Spot(LARGE / 2, LARGE / 2, 0.3 * LARGE)
    draw_shape(page.start(behind), "circle", spot, COLOURS["red"], behind)
    pixels = np.asarray(page.picture(), dtype=int)
    assert pixels[2, 2].max() < 30  # the background
    assert pixels[64, 64].max() < 60  # the inside
    assert abs(pixels[64, 64 - 35] - COLOURS["red"]).max() < 30  # the line


def test_neon_leaves_the_held_out_combinations_out() -> None:
    rng = random.Random(4)
    assert not any(held_out(c) for _ in range(30) for c in neon(rng).truth.combinations())


def test_an_interrupted_training_ends_with_the_same_lora(tmp_path: Path) -> None:
    pipeline, budget = small_pipeline(), loop.Budget(steps=6)
    straight, broken = trainer(pipeline), trainer(pipeline)
    loop.run(straight, budget, tmp_path / "straight.pt", quiet)
    loop.run(broken, budget, tmp_path / "broken.pt", quiet, stop_at=3)
    broken = trainer(pipeline)
    loop.run(broken, budget, tmp_path / "broken.pt", quiet)
    straight.write(tmp_path / "straight.safetensors")
    broken.write(tmp_path / "broken.safetensors")
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert all(value.dtype == torch.float16 for value in first.values())
    # A new LoRA's second matrices are zero: these have learned.
    assert all(value.any() for name, value in first.items() if "lora_B" in name)


def test_the_shipped_lora_darkens_the_background_and_keeps_the_colour() -> None:
    asked = compose("one", Truth("one", "yellow", (Thing("circle", "red"),)))
    pipeline = measured.load_with_lora(LOADED, measured.LORA)
    without, drawn = (measured.draw(pipeline, LOADED, [asked], w)[0] for w in (0.0, 1.0))
    assert judge(without, asked.truth).background
    assert measured.background_brightness(without) > 120
    assert measured.background_brightness(drawn) < 30
    assert judge(drawn, asked.truth).colour


def test_the_shipped_lora_is_small_and_named_in_one_way() -> None:
    """Where names of two sorts are mixed, diffusers reads one sort and drops the other."""
    assert measured.LORA.stat().st_size < 700_000
    found = load_file(measured.LORA)
    assert {value.dtype for value in found.values()} == {torch.float16}
    sorts = [name.rsplit(".", 2)[1] for name in found]
    assert set(sorts) == {"lora_A", "lora_B"}
    assert any("attn2.to_k" in name for name in found)
    assert any("resnets" in name for name in found)


def test_the_table_names_what_was_counted() -> None:
    rows = [measured.Row(0.0, 141.26, 0, 23, 8, 24), measured.Row(1.0, 9.0, 24, 22, 7, 24)]
    lines = measured.table(rows).splitlines()
    assert " ".join(lines[1].split()) == "without 141.3 0 of 24 23 of 24 8 of 8"
    assert " ".join(lines[2].split()) == "1 9.0 24 of 24 22 of 24 7 of 8"


def test_the_measured_prompts_are_held_out_and_have_something_to_change() -> None:
    asked = measured.prompts()
    assert len({prompt.text for prompt in asked}) == sum(measured.KINDS.values()) == 24
    for prompt in asked:
        assert all(map(held_out, prompt.truth.combinations()))
        assert "black" not in prompt.text


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
