"""How large a terminal is, in letters and in pixels, and how large a picture becomes on it."""

import fcntl
import os
import struct
import termios
from typing import IO, NamedTuple

CELL_PIXELS = (10, 20)
"""Of a letter where the terminal does not tell: of most fonts it is twice as high as wide."""

MIN_COLUMNS = 8
MIN_LINES = 4
"""On less than that nothing can be made out."""


class Screen(NamedTuple):
    """Columns and lines of letters, and the pixels of one letter."""

    columns: int
    lines: int
    cell_width: int = CELL_PIXELS[0]
    cell_height: int = CELL_PIXELS[1]


def screen_of(stream: IO[str]) -> Screen:
    """The terminal behind a stream; the usual 80 by 24 where there is none.

    Source: ``TIOCGWINSZ``, whose last two numbers are pixels, or 0.
    """
    try:
        answer = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError, AttributeError):  # closed, in memory, or no terminal
        return Screen(80, 24)
    lines, columns, width, height = struct.unpack("HHHH", answer)
    columns = _from_environment("COLUMNS") or columns or 80
    lines = _from_environment("LINES") or lines or 24
    cell = (width // columns, height // lines)
    if min(cell) < 1 or not 0.2 <= cell[0] / cell[1] <= 2:
        cell = CELL_PIXELS
    return Screen(columns, lines, *cell)


def _from_environment(name: str) -> int:
    """As Rich does: what a person sets there goes before what the terminal says."""
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0


def fitting(size: tuple[int, int], columns: int, lines: int) -> tuple[int, int]:
    """Pixels of a picture of the same shape on a grid of halves of letters: an even height."""
    scale = min(columns / size[0], 2 * lines / size[1])
    height = 2 * max(1, round(size[1] * scale / 2))
    return max(1, min(columns, round(size[0] * scale))), min(2 * lines, height)


def cells_of(size: tuple[int, int], columns: int, lines: int, screen: Screen) -> tuple[int, int]:
    """Columns and lines of a picture of so many pixels, in its own shape, within a box."""
    cell_width, cell_height = screen.cell_width, screen.cell_height
    scale = min(columns * cell_width / size[0], lines * cell_height / size[1])
    across, down = size[0] * scale / cell_width, size[1] * scale / cell_height
    return max(1, min(columns, round(across))), max(1, min(lines, round(down)))
