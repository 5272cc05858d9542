"""Pictures of letters, for all terminals in colour."""

from typing import TYPE_CHECKING

from sdq.cli.pictures.screen import fitting

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.text import Text

UPPER_HALF = "▀"


def has_blocks(encoding: str | None) -> bool:
    """Whether a stream of this encoding can be told these letters."""
    try:
        UPPER_HALF.encode(encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def in_blocks(image: "Image", columns: int, lines: int) -> "Text":
    """A picture in RGB, two pixels a letter: the upper half in the colour of the text, the lower
    one behind it. Rich takes the nearest colours that the terminal has."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    width, height = fitting(image.size, columns, lines)
    small = image.resize((width, height))
    data = small.tobytes()
    colours = [Color.from_rgb(*data[at : at + 3]) for at in range(0, len(data), 3)]
    text = Text(no_wrap=True, overflow="crop", end="")
    for top in range(0, height, 2):
        if top:
            text.append("\n")
        for at in range(top * width, (top + 1) * width):
            text.append(UPPER_HALF, Style(color=colours[at], bgcolor=colours[at + width]))
    return text
