"""Keys of pictures, as people and other programs write them."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sdq.cli import completion_words
from sdq.errors import UsageError

KEY_CHARACTERS = 4
"""The least that a beginning of a key must have."""

KEYS_AT_ONCE = 1_000
"""In one message."""

MAX_KEYS = 1_000_000
"""From standard input: some 100 MB of memory."""

_MAX_LINE_CHARACTERS = 10_000

Keys = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY...",
        help="Keys of pictures, or their beginnings; - reads them, one a line.",
        autocompletion=completion_words.keys,
    ),
]


def checked_key(text: str) -> str:
    """The beginning of a key, or `UsageError`."""
    key = text.lower()
    if not KEY_CHARACTERS <= len(key) <= 64 or set(key) - set("0123456789abcdef"):
        raise UsageError(
            f"{text[:80]!r} is no key of a picture",
            hint=f"{KEY_CHARACTERS} to 64 hexadecimal digits; `sdq find` shows them",
        )
    return key


def checked_keys(texts: Sequence[str]) -> list[str]:
    """All of them, each once; ``-`` stands for the first word of each line of standard input.

    Raises `UsageError` for what is no key, and when there are none.
    """
    keys: dict[str, None] = {}
    for text in texts:
        for key in _lines() if text == "-" else [text]:
            keys[checked_key(key)] = None
            if len(keys) > MAX_KEYS:
                raise UsageError(f"more than {MAX_KEYS} keys are too many", hint="give fewer")
    if not keys:
        raise UsageError("standard input has no keys", hint="`sdq find --keys` prints some")
    return list(keys)


def _lines() -> list[str]:
    """The first word of each line, a table of `sdq find` too."""
    words: list[str] = []
    while line := sys.stdin.buffer.readline(_MAX_LINE_CHARACTERS):
        said = line.decode("utf-8", "replace").split()
        if said and said[0] != "KEY":
            words.append(said[0].removesuffix("*"))
        if len(words) > MAX_KEYS:  # maybe it has no end
            raise UsageError(f"more than {MAX_KEYS} keys are too many", hint="give fewer")
    return words
