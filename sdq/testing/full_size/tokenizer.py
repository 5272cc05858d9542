"""A tokenizer of CLIP's form whose vocabulary was made up: every number is a word of it.

CLIP's own begins with 256 signs, the same at a word's end, and goes on with what pairs of
these were merged into. Here the pairs are letters in the order of the alphabet, so a prompt
becomes words of one to four letters, each with a row of its own among the embeddings.
"""

import itertools
import string
from collections.abc import Iterator
from typing import Any

from sdq.testing.full_size.layouts import TOKENS

START, END = "<|startoftext|>", "<|endoftext|>"
_LAST = "</w>"  # marks a word's end


def tokenizer_of(vocabulary: int, pad_token: str = END) -> Any:
    """With ``vocabulary`` words, the last two of them `START` and `END`; at least 514."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    signs = sorted(ByteLevel.alphabet())
    words = [*signs, *(sign + _LAST for sign in signs)]
    merges = list(itertools.islice(_merges(), vocabulary - len(words) - 2))
    words += [left + right for left, right in merges]
    words += [START, END]
    if len(words) != vocabulary:
        raise ValueError(f"a vocabulary has 514 to some 500,000 words, not {vocabulary}")
    return transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,
        model_max_length=TOKENS,
        pad_token=pad_token,
    )


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs whose halves are words by then, the shortest first."""
    letters = string.ascii_lowercase
    pairs = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    for first, rests in ((letters, letters), (pairs, letters), (pairs, pairs)):
        for left, right in itertools.product(first, rests):
            yield left, right + _LAST if len(right) == 1 else right
            if len(right) == 1:
                yield left, right
