"""A tokenizer of CLIP's form whose vocabulary was made up: every number is a word of it.

CLIP's own begins with 256 signs, the same at a word's end, and goes on with what pairs of
these were merged into. Here the pairs are letters in the order of the alphabet, so a prompt
becomes words of one to four letters, each with a row of its own among the embeddings.
"""

import itertools
import string
from collections.abc import Iterator
from typing import Any

from sdq.worker.layouts import vocabulary
from sdq.worker.layouts.vocabulary import END, WORD_END

_OTHER_WORDS = 514
"""The signs, the same at a word's end, and two marks."""


def tokenizer_of(words: int, pad_token: str = END) -> Any:
    """With so many words, the last two of them the marks of CLIP; at least 514."""
    merges = list(itertools.islice(_merges(), max(0, words - _OTHER_WORDS)))
    if len(merges) + _OTHER_WORDS != words:
        raise ValueError(f"a vocabulary has 514 to some 500,000 words, not {words}")
    return vocabulary.tokenizer_of(merges, pad_token)


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs whose halves are words by then, the shortest first."""
    letters = string.ascii_lowercase
    pairs = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    for first, rests in ((letters, letters), (pairs, letters), (pairs, pairs)):
        for left, right in itertools.product(first, rests):
            yield left, right + WORD_END if len(right) == 1 else right
            if len(right) == 1:
                yield left, right
