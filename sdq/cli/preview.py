"""Pictures that grow on a terminal: what it understands, and how they are drawn there.

A *painter* makes of a small picture something that Rich can print. `PAINTERS` has all of them, the
best first; another protocol of terminals is another class there.
"""

import io
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import RenderableType

MAX_SIDE_PIXELS = 1_024
"""Of a preview. A few bytes may say that they are a picture of gigabytes."""

UPPER_HALF = "▀"
_NO_TERMINALS = ("", "dumb", "unknown")


class Painter(Protocol):
    """One way of drawing on terminals."""

    def is_understood(self, stream: TextIO, environment: Mapping[str, str]) -> bool:
        """Whether the terminal behind the stream draws what this one paints."""

    def paint(self, image: "Image", columns: int, lines: int) -> "RenderableType":
        """The picture in RGB, as large as it can be within so many columns and lines."""


class HalfBlocks:
    """Two pixels a letter: the upper half in the colour of the text, the lower one behind it.
    Rich takes the nearest colours that the terminal has."""

    def is_understood(self, stream: TextIO, environment: Mapping[str, str]) -> bool:
        """See `Painter`."""
        if environment.get("NO_COLOR") or environment.get("TERM", "") in _NO_TERMINALS:
            return False
        try:
            UPPER_HALF.encode(stream.encoding or "ascii")
        except (UnicodeError, LookupError):
            return False
        return True

    def paint(self, image: "Image", columns: int, lines: int) -> "RenderableType":
        """See `Painter`."""
        from rich.color import Color
        from rich.style import Style
        from rich.text import Text

        width, height = fitting(image.size, columns, lines)
        small = image.resize((width, height))
        pixels = [small.getpixel((x, y)) for y in range(height) for x in range(width)]
        colours = [Color.from_rgb(*pixel) for pixel in pixels]  # type: ignore[misc]
        text = Text(no_wrap=True, overflow="crop", end="")
        for top in range(0, height, 2):
            if top:
                text.append("\n")
            for at in range(top * width, (top + 1) * width):
                text.append(UPPER_HALF, Style(color=colours[at], bgcolor=colours[at + width]))
        return text


PAINTERS: tuple[Painter, ...] = (HalfBlocks(),)


def painter_for(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Painter | None:
    """The best one that the terminal understands; ``None``: nothing can be shown there."""
    if not stream.isatty():
        return None
    return next((one for one in PAINTERS if one.is_understood(stream, environment)), None)


def fitting(size: tuple[int, int], columns: int, lines: int) -> tuple[int, int]:
    """Pixels of a picture of the same shape on a grid of halves of letters: an even height."""
    scale = min(columns / size[0], 2 * lines / size[1])
    height = 2 * max(1, round(size[1] * scale / 2))
    return max(1, min(columns, round(size[0] * scale))), min(2 * lines, height)


def decoded(jpeg: bytes) -> "Image | None":
    """A preview in RGB; ``None`` when it is none, or far too large: its bytes are a stranger's."""
    from PIL import Image  # 20 ms, for those who watch only

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's words of huge ones would reach the terminal
            with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
                return image.convert("RGB") if max(image.size) <= MAX_SIDE_PIXELS else None
    except Exception:  # noqa: BLE001 - whatever Pillow makes of them
        return None
