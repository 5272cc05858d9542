"""CLIP's tokenizer, rebuilt from its merges, against numbers that are published everywhere."""

from typing import Any

import pytest

from sdq.worker.layouts.vocabulary import clip_merges, clip_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return clip_tokenizer()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        (
            "a photograph of an astronaut riding a horse",
            [320, 8853, 539, 550, 18376, 6765, 320, 4558],
        ),
        ("", []),
    ],
)
def test_known_texts(tokenizer: Any, text: str, numbers: list[int]) -> None:
    assert tokenizer(text).input_ids == [49406, *numbers, 49407]


def test_every_language_can_be_said(tokenizer: Any) -> None:
    for text in ("eine blaue Tür", "красный круг", "赤い丸", "🎨"):
        numbers = tokenizer(text).input_ids
        assert tokenizer.decode(numbers, skip_special_tokens=True).strip() == text.lower()


def test_long_texts_are_cut_at_77(tokenizer: Any) -> None:
    found = tokenizer("cat " * 200, truncation=True, padding="max_length")
    assert len(found.input_ids) == 77


def test_its_size(tokenizer: Any) -> None:
    assert len(tokenizer) == 49408
    assert len(clip_merges()) == 48894
