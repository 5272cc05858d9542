"""A finished picture on the terminal: the one call for all commands."""

import io
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdq.cli.pictures import iterm2, kitty, sixel
from sdq.cli.pictures.blocks import in_blocks
from sdq.cli.pictures.detection import Means, Way, means_of
from sdq.cli.pictures.screen import MIN_COLUMNS, MIN_LINES, Screen, cells_of, screen_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console

MAX_PIXELS = 64 * 1024 * 1024
"""Of a picture that is shown: decoding it takes three bytes for each."""

MAX_COLUMNS = 80
SMALL_COLUMNS = 32
"""A picture that would be smaller is enlarged to that."""

_FREE_LINES = 3
"""Of the terminal's height: the line that names the picture stays in sight."""

_KINDS = ("PNG", "JPEG", "WEBP")


def show(
    picture: "bytes | Image",
    console: "Console | None" = None,
    width_columns: int | None = None,
    *,
    setting: str = "auto",
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Shows a picture on the terminal of a console (``None``: standard error), below the cursor.

    ``picture``: a Pillow image, or the bytes of a PNG, JPEG or WebP file. ``width_columns``: how
    wide at most; it never is wider or higher than the terminal. ``setting``: ``client.pictures``.
    Says whether there is something to be seen: nothing is written where there is no terminal, a
    dumb or a tiny one, with ``NO_COLOR``, and for what is no picture. Never raises for what a
    terminal or the bytes are like.
    """
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    stream = console.file
    means = means_of(stream, setting, environment) if stream.isatty() else None
    image = None if means is None else decoded(picture)
    if means is None or image is None:
        return False
    screen = screen_of(stream)
    box = _box(image, screen, width_columns)
    if box is None:
        return False
    if means.way is Way.BLOCKS:
        console.print(in_blocks(image, *box))
        return True
    try:
        stream.write(_sequences(image, means, screen, box))
        stream.flush()
    except OSError:  # the terminal is gone
        return False
    return True


def decoded(
    picture: "bytes | Image", *, kinds: tuple[str, ...] = _KINDS, max_pixels: int = MAX_PIXELS
) -> "Image | None":
    """A picture in RGB; ``None`` when it is none, or far too large: bytes are a stranger's."""
    from PIL import Image  # 20 ms, for those who look only

    try:
        if not isinstance(picture, bytes):
            return picture.convert("RGB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's words of huge ones would reach the terminal
            with Image.open(io.BytesIO(picture), formats=kinds) as image:
                small_enough = image.width * image.height <= max_pixels
                return image.convert("RGB") if small_enough else None
    except Exception:  # noqa: BLE001 - whatever Pillow makes of them
        return None


def png_of(image: "Image", columns: int, lines: int, screen: Screen) -> bytes:
    """A picture in RGB as PNG, with no more pixels than so many letters have. Written anew: what
    else was in the file does not reach the terminal."""
    buffer = io.BytesIO()
    _reduced(image, columns, lines, screen).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _sequences(image: "Image", means: Means, screen: Screen, box: tuple[int, int]) -> str:
    columns, lines = cells_of(image.size, *box, screen)
    if means.way is Way.SIXEL:
        size = columns * screen.cell_width, lines * screen.cell_height
        return sixel.at_cursor(image.resize(size))
    png = png_of(image, columns, lines, screen)
    if means.way is Way.ITERM2:
        return iterm2.at_cursor(png, columns, lines)
    if not means.in_tmux:
        return kitty.at_cursor(png, columns, lines)
    number = kitty.number_of(0, kitty.new_seed())
    return kitty.InCells(png, number, columns, lines, kitty.through_tmux).text()


def _box(image: "Image", screen: Screen, width_columns: int | None) -> tuple[int, int] | None:
    """Columns and lines that there are for it; ``None``: too few."""
    columns = min(width_columns or MAX_COLUMNS, screen.columns - 1)
    lines = min(screen.lines - _FREE_LINES, kitty.MAX_LINES)
    if columns < MIN_COLUMNS or lines < MIN_LINES:
        return None
    if width_columns is None:
        columns = min(columns, max(SMALL_COLUMNS, image.width // screen.cell_width))
    return columns, lines


def _reduced(image: "Image", columns: int, lines: int, screen: Screen) -> "Image":
    width, height = columns * screen.cell_width, lines * screen.cell_height
    if image.width <= width and image.height <= height:
        return image
    smaller = image.copy()
    smaller.thumbnail((max(width, 1), max(height, 1)))
    return smaller
