"""The graphics protocol of kitty: https://sw.kovidgoyal.net/kitty/graphics-protocol/

A picture goes to the terminal as a PNG in base64, in pieces. Where it is to be seen is said in one
of two ways: at the cursor, or by *placeholders*, letters of the private use area whose accents say
which part of the picture they stand for. These are text: they scroll, they are erased, tmux and
Rich carry them about, and a new picture of the same number appears where the one before was.
"""

import os
from base64 import standard_b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.segment import Segment

CHUNK_BYTES = 4_096
"""Of base64 in one escape sequence: the protocol's own limit."""

PLACEHOLDER = "\U0010eeee"

ACCENTS = (
    "\u0305\u030d\u030e\u0310\u0312\u033d\u033e\u033f\u0346\u034a\u034b\u034c\u0350\u0351\u0352"
    "\u0357\u035b\u0363\u0364\u0365\u0366\u0367\u0368\u0369\u036a\u036b\u036c\u036d\u036e\u036f"
    "\u0483\u0484\u0485\u0486\u0487\u0592\u0593\u0594\u0595\u0597\u0598\u0599\u059c\u059d\u059e"
    "\u059f\u05a0\u05a1\u05a8\u05a9\u05ab\u05ac\u05af\u05c4\u0610\u0611\u0612\u0613\u0614\u0615"
)
"""What stands for 0, 1, 2 …: the first ones of the protocol's table (rowcolumn-diacritics.txt)."""

MAX_LINES = len(ACCENTS)

Wrap = Callable[[str], str]
"""What an escape sequence has to be put into on its way to the terminal."""


def unwrapped(sequence: str) -> str:
    """Straight to the terminal."""
    return sequence


def through_tmux(sequence: str) -> str:
    """Handed through by tmux, where ``allow-passthrough`` is on."""
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def transmission(png: bytes, wrap: Wrap = unwrapped, **keys: object) -> str:
    """The sequences that send a PNG, with these keys in the first. The terminal answers nothing."""
    data = standard_b64encode(png).decode()
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)] or [""]
    parts = []
    for number, chunk in enumerate(chunks):
        said: Mapping[str, object] = {"f": 100, **keys} if number == 0 else {}
        said = {**said, "q": 2, "m": int(number < len(chunks) - 1)}
        head = ",".join(f"{name}={value}" for name, value in said.items())
        parts.append(wrap(f"\x1b_G{head};{chunk}\x1b\\"))
    return "".join(parts)


def at_cursor(png: bytes, columns: int, lines: int) -> str:
    """Shows a picture at the cursor, which is below it afterwards."""
    return transmission(png, a="T", c=columns, r=lines) + "\n"


def forgetting(number: int, wrap: Wrap = unwrapped) -> str:
    """Takes a picture out of the terminal's memory."""
    return wrap(f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\")


def new_seed() -> int:
    """What keeps two programs in one window apart."""
    return int.from_bytes(os.urandom(3))


def number_of(place: int, seed: int) -> int:
    """The number of a picture in the terminal's memory, above 2²⁴; some 14,000 are told apart."""
    colour = 16 + (seed + place) % 240
    return (1 + seed // 240 % (len(ACCENTS) - 1) << 24) | colour


class InCells:
    """A picture for Rich: its bytes once, then its placeholders.

    The number is said by the colour (256 of them, so that tmux carries it everywhere) and by the
    third accent, which stands for its highest byte.
    """

    def __init__(
        self, png: bytes, number: int, columns: int, lines: int, wrap: Wrap = unwrapped
    ) -> None:
        self.columns, self.lines = columns, min(lines, MAX_LINES)
        self._number = number
        self._sending = transmission(
            png, wrap, a="T", U=1, i=number, c=self.columns, r=self.lines
        )  # cleared once sent

    def rows(self) -> Iterator[str]:
        """The text of each line, without its colour."""
        high = ACCENTS[self._number >> 24]
        for line in range(self.lines):
            yield PLACEHOLDER + ACCENTS[line] + ACCENTS[0] + high + PLACEHOLDER * (self.columns - 1)

    @property
    def colour(self) -> str:
        """The sequence in front of each line."""
        return f"\x1b[38;5;{self._number & 0xFF}m"

    def text(self) -> str:
        """All of it, for who prints it without Rich."""
        sending, self._sending = self._sending, ""
        lines = (f"{self.colour}{row}\x1b[39m\n" for row in self.rows())
        return sending + "".join(lines)

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[Segment]":
        from rich.segment import ControlType, Segment

        def control(text: str) -> Segment:
            # Rich prints what is called a control as it is, and takes it for no letters.
            return Segment(text, None, [(ControlType.BELL,)])

        sending, self._sending = self._sending, ""
        for row in self.rows():
            yield control(sending + self.colour)
            yield Segment(row)
            yield control("\x1b[39m")
            yield Segment.line()
            sending = ""

    def __rich_measure__(self, console: "Console", options: "ConsoleOptions") -> "Measurement":
        from rich.measure import Measurement

        return Measurement(self.columns, self.columns)
