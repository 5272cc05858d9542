"""What the parts of the stack tell people: lines on standard error, nothing on standard output."""

import sys
from collections.abc import Callable

Say = Callable[[str], None]


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text from a log or another machine without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
