"""What the cells of a row mean."""

from typing import Any

import pytest

from sdq.cli.batch.columns import BatchLine, line_of
from sdq.errors import UsageError
from sdq.spec import LoraChoice, SpecDraft

DEFAULTS = SpecDraft("", "blurry", num_inference_steps=20, seed=5)


def line(**fields: Any) -> BatchLine:
    return line_of(7, fields, "raw", defaults=DEFAULTS, count=2)


def test_all_columns() -> None:
    made = line(
        prompt=" a cat ", negative="x", model="m", steps="7", guidance="2.5", size="64x72",
        scheduler="euler", seed="3.0", loras="neon:0.5, ink", count="4", output="a.png",
    )  # fmt: skip
    loras = (LoraChoice("neon", 0.5), LoraChoice("ink"))
    draft = SpecDraft(" a cat ", "x", "m", 64, 72, 7, 2.5, "euler", 3, loras)
    assert made == BatchLine(7, draft, 4, "a.png", "raw")
    same = line(
        prompt=" a cat ", negative_prompt="x", model="m", num_inference_steps=7,
        guidance_scale=2.5, width=64, height=72, scheduler="euler", seed=3,
        loras=["neon:0.5", "ink"], count=4, output="a.png",
    )  # fmt: skip
    assert same == made


def test_what_is_left_out_is_as_the_flags_say() -> None:
    made = line(prompt="x", steps="", seed=None, negative=" ", output="")
    assert made == BatchLine(7, SpecDraft("x", "blurry", num_inference_steps=20, seed=5), 2, None, "raw")  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": "many"}, "column 'steps': 'many' is no whole number"),
        ({"steps": 2.5}, "no whole number"),
        ({"seed": True}, "no whole number"),
        ({"seed": 1e400}, "no whole number"),
        ({"guidance": "high"}, "column 'guidance': 'high' is no number"),
        ({"guidance": []}, "no number"),
        ({"count": 0}, "less than 1"),
        ({"negative": {"a": 1}}, "no text"),
        ({"size": "big"}, "'big' is no size"),
        ({"size": "64x64", "width": 64}, "size says it all"),
        ({"loras": ":1"}, "names no LoRA"),
    ],
)
def test_what_means_nothing_names_its_column(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        line(prompt="x", **fields)
    assert words in refused.value.message


def test_a_line_needs_a_prompt() -> None:
    with pytest.raises(UsageError, match="there is no prompt"):
        line(steps=3, prompt="  ")
