"""The tokenizer: every word of the captions is one token, any other text falls into pieces.

It is a plain CLIP tokenizer whose merges are learned from the list of caption words instead
of from running text.
"""

import random
import re
from collections import Counter
from itertools import pairwise
from typing import TypeAlias

from transformers import CLIPTokenizer

from training.dataset import sample

Pair: TypeAlias = tuple[str, str]

LENGTH = 48
"""Tokens per caption, the two marks at its ends included; longer captions are cut."""

VOCABULARY_SEED = 3
VOCABULARY_CAPTIONS = 20_000
RARE = 8
"""A word that occurs less often in all those captions is no word: made-up ones are dropped."""

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_characters() -> list[str]:
    """GPT-2's printable characters that stand for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]


def caption_words() -> list[str]:
    """The words of the captions, sorted."""
    rng = random.Random(VOCABULARY_SEED)
    counts: Counter[str] = Counter()
    for _ in range(VOCABULARY_CAPTIONS):
        counts.update(re.findall(r"[a-z]+", sample(rng, ink=False).caption.lower()))
    return sorted(word for word, count in counts.items() if count >= RARE)


def _join(pieces: list[str], pair: Pair) -> list[str]:
    """The pieces with every occurrence of the pair made one piece."""
    joined: list[str] = []
    index = 0
    while index < len(pieces):
        if tuple(pieces[index : index + 2]) == pair:
            joined.append(pair[0] + pair[1])
            index += 2
        else:
            joined.append(pieces[index])
            index += 1
    return joined


def learn_merges(words: list[str]) -> list[Pair]:
    """Byte-pair encoding, continued until every word is one piece.

    Merges are learned in the order in which they are applied, so none gets in another's way.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[Pair] = []
    while True:
        pairs = Counter(pair for word in spelled for pair in pairwise(word))
        if not pairs:
            return merges
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled = [_join(word, best) for word in spelled]


def build(words: list[str], length: int = LENGTH) -> CLIPTokenizer:
    """A tokenizer for which each of the words is one token."""
    merges = learn_merges(words)
    characters = byte_characters()
    pieces = characters + [character + "</w>" for character in characters]
    pieces += [first + second for first, second in merges]
    # Two ways of joining may spell the same piece: it keeps its first number.
    unique = dict.fromkeys([*pieces, START, END])
    vocabulary = {piece: index for index, piece in enumerate(unique)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
