"""Pictures that grow on a terminal: what it understands, and how they are drawn there.

A *painter* makes of a small picture something that Rich can print, again and again. Only pictures
that are letters can be erased with the lines around them: kitty's placeholders and half blocks.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

from sdq.cli.pictures import kitty
from sdq.cli.pictures.blocks import has_blocks, in_blocks
from sdq.cli.pictures.detection import Means, means_of
from sdq.cli.pictures.screen import cells_of, screen_of
from sdq.cli.pictures.show import decoded as _decoded
from sdq.cli.pictures.show import png_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import RenderableType

MAX_SIDE_PIXELS = 1_024
"""Of a preview. A few bytes may say that they are a picture of gigabytes."""


class Painter(Protocol):
    """One way of drawing on terminals."""

    def paint(self, image: "Image", columns: int, lines: int, place: int = 0) -> "RenderableType":
        """The picture in RGB, as large as it can be within so many columns and lines. A new one at
        the same ``place`` follows the one before."""

    def farewell(self) -> str:
        """What to send when nothing is shown any more."""


class HalfBlocks:
    """Two pixels a letter."""

    def paint(self, image: "Image", columns: int, lines: int, place: int = 0) -> "RenderableType":
        """See `Painter`."""
        return in_blocks(image, columns, lines)

    def farewell(self) -> str:
        """See `Painter`."""
        return ""


class KittyCells:
    """The pixels themselves, in the place of letters; each place has a number of its own, whose
    picture the terminal replaces."""

    def __init__(self, stream: TextIO, *, in_tmux: bool = False, seed: int | None = None) -> None:
        self._stream = stream
        self._wrap = kitty.through_tmux if in_tmux else kitty.unwrapped
        self._seed = kitty.new_seed() if seed is None else seed
        self._places: set[int] = set()

    def paint(self, image: "Image", columns: int, lines: int, place: int = 0) -> "RenderableType":
        """See `Painter`."""
        screen = screen_of(self._stream)
        across, down = cells_of(image.size, columns, min(lines, kitty.MAX_LINES), screen)
        self._places.add(place)
        number = kitty.number_of(place, self._seed)
        png = png_of(image, across, down, screen)
        return kitty.InCells(png, number, across, down, self._wrap)

    def farewell(self) -> str:
        """See `Painter`."""
        places, self._places = self._places, set()
        numbers = (kitty.number_of(place, self._seed) for place in sorted(places))
        return "".join(kitty.forgetting(number, self._wrap) for number in numbers)


def painter_for(
    stream: TextIO, environment: Mapping[str, str] = os.environ, setting: str = "auto"
) -> Painter | None:
    """The best one that the terminal understands; ``None``: nothing can be shown there."""
    means = means_of(stream, setting, environment, asks=False)
    return None if means is None else _painter_of(means, stream)


def _painter_of(means: Means, stream: TextIO) -> Painter | None:
    if means.has_cells:
        return KittyCells(stream, in_tmux=means.in_tmux)
    return HalfBlocks() if has_blocks(stream.encoding) else None


def decoded(jpeg: bytes) -> "Image | None":
    """A preview in RGB; ``None`` when it is none, or far too large: its bytes are a stranger's."""
    image = _decoded(jpeg, kinds=("JPEG",), max_pixels=MAX_SIDE_PIXELS**2)
    return image if image is not None and max(image.size) <= MAX_SIDE_PIXELS else None
