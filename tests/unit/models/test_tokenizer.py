"""The tokenizer: one token a word, pieces for the rest, the same as the shipped one."""

import json
from pathlib import Path

import pytest
import sdq_shapes
from training.tokenizer import LENGTH, build, caption_words, learn_merges
from transformers import CLIPTokenizer


@pytest.fixture(scope="module")
def words() -> list[str]:
    return caption_words()


@pytest.fixture(scope="module")
def tokenizer(words: list[str]) -> CLIPTokenizer:
    return build(words)


def test_every_word_of_the_captions_is_one_token(
    words: list[str], tokenizer: CLIPTokenizer
) -> None:
    assert len(words) > 100
    assert {"red", "crescent", "background", "sailboat"} <= set(words)
    # The two others are the marks at the ends.
    assert [word for word in words if len(tokenizer(word).input_ids) != 3] == []


def test_any_text_has_tokens_and_comes_back(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a zebra, 日本 🙂").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "azebra,日本🙂"
    assert len(tokenizer("").input_ids) == 2
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_captions_are_padded_and_cut_to_one_length(tokenizer: CLIPTokenizer) -> None:
    for text in ("a red ball", "red " * 100):
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == LENGTH


def test_merges_join_words_that_share_letters() -> None:
    assert ("a", "b</w>") in learn_merges(["ab", "cab"])


def test_the_recipe_gives_the_shipped_vocabulary(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    shipped = sdq_shapes.folder() / "tokenizer" / "tokenizer.json"
    made, known = (
        json.loads(path.read_text(encoding="utf-8"))["model"]
        for path in (tmp_path / "tokenizer.json", shipped)
    )
    assert made == known
