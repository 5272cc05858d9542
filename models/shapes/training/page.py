"""The sheet that a picture is drawn on, with or without ink.

Pictures are drawn three times too large and averaged down, which smooths the edges. A page
without ink makes the same random choices and draws nothing: captions alone, for the
vocabulary and for looking up what a training set held, cost a small part of the time.
"""

from typing import Any

from PIL import Image, ImageDraw

from training.palette import Colour, mix

OVERSAMPLING = 3
SIDE = 128
LARGE = SIDE * OVERSAMPLING
"""The side of the sheet that is drawn on; all drawing coordinates run from 0 to LARGE."""


class _NoInk(ImageDraw.ImageDraw):
    """Accepts every drawing call and draws nothing."""

    def ellipse(self, *_args: Any, **_options: Any) -> None:
        pass

    def rectangle(self, *_args: Any, **_options: Any) -> None:
        pass

    def rounded_rectangle(self, *_args: Any, **_options: Any) -> None:
        pass

    def polygon(self, *_args: Any, **_options: Any) -> None:
        pass

    def line(self, *_args: Any, **_options: Any) -> None:
        pass

    def arc(self, *_args: Any, **_options: Any) -> None:
        pass


class Page:
    """One picture in the making: `start` paints it in one colour, `picture` gives the result."""

    def __init__(self, *, ink: bool = True) -> None:
        side = LARGE if ink else OVERSAMPLING
        self._image = Image.new("RGB", (side, side))
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(self._image) if ink else _NoInk(self._image)

    def start(self, colour: Colour) -> ImageDraw.ImageDraw:
        """Paints the whole sheet and returns the pen."""
        self._image.paste(colour, (0, 0, *self._image.size))
        return self.draw

    def picture(self) -> Image.Image:
        """The finished picture, SIDE pixels wide and high (one pixel without ink)."""
        return self._image.reduce(OVERSAMPLING)


def gradient(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    top: Colour,
    bottom: Colour,
) -> None:
    """Fills the box with colours running from top to bottom."""
    if isinstance(draw, _NoInk):
        return
    left, upper, right, lower = map(int, box)
    for y in range(upper, lower):
        colour = mix(top, bottom, (y - upper) / max(1, lower - upper))
        draw.line([(left, y), (right, y)], fill=colour)
