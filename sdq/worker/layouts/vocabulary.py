"""The tokenizer of CLIP, which all families of Stable Diffusion share.

``clip_merges.txt.gz`` is its list of 48,894 merges in their order, published by OpenAI under the
MIT licence (Copyright (c) 2021 OpenAI, github.com/openai/CLIP, the first merges of
``bpe_simple_vocab_16e6.txt``). The vocabulary follows from it: 256 signs, the same at a word's
end, what the merges give, and two marks for beginning and end.
"""

import gzip
from collections.abc import Sequence
from importlib import resources
from typing import Any

from sdq.worker.layouts.figures import TOKENS

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def clip_tokenizer(pad_token: str = END) -> Any:
    """A ``transformers.CLIPTokenizer`` with 49,408 words. Half a second."""
    return tokenizer_of(clip_merges(), pad_token)


def tokenizer_of(merges: Sequence[tuple[str, str]], pad_token: str = END) -> Any:
    """One of CLIP's form with these merges: 514 words more than they are."""
    import transformers

    words = [*(signs := _signs()), *(sign + WORD_END for sign in signs)]
    words += [left + right for left, right in merges]
    words += [START, END]
    return transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=list(merges),
        model_max_length=TOKENS,
        pad_token=pad_token,
    )


def clip_merges() -> list[tuple[str, str]]:
    """In the order in which they were learnt, which is that of their numbers."""
    packed = resources.files("sdq.worker.layouts").joinpath("clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines)]


def _signs() -> list[str]:
    """A visible sign for each of the 256 bytes: those that are visible stand for themselves and
    come first, the others follow as the letters from number 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(visible))
    return [*map(chr, visible), *(chr(256 + place) for place in range(len(hidden)))]
