"""``--lora``: what it may say."""

import pytest

from sdq.cli.picture_options import loras_of
from sdq.errors import UsageError
from sdq.spec import LoraChoice


def test_names_with_and_without_a_weight() -> None:
    assert loras_of([]) == ()
    given = ["neon", "ink:0.8", "dark.v1-5:-2", "off:0"]
    assert loras_of(given) == (
        LoraChoice("neon", None),
        LoraChoice("ink", 0.8),
        LoraChoice("dark.v1-5", -2.0),
        LoraChoice("off", 0.0),
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["neon:"], "'' is no weight"),
        (["neon:strong"], "'strong' is no weight"),
        (["neon:0,8"], "'0,8' is no weight"),
        (["neon:nan"], "'nan' is no weight"),
        (["neon:11"], "'11' is no weight"),
        (["neon:-inf"], "'-inf' is no weight"),
        (["neon:1:2"], "'1:2' is no weight"),
        ([":0.8"], "names no LoRA"),
        ([" "], "names no LoRA"),
        (["neon", "neon:0.5"], "--lora neon is there twice"),
        ([f"l{number}" for number in range(9)], "9 LoRAs in one picture: at most 8"),
    ],
)
def test_what_is_wrong_is_told_in_words(given: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        loras_of(given)
