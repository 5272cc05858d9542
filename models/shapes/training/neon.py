"""The neon style: what a picture shows, as glowing outlines in its own colours on the dark.

python -m training.neon FILE [--seed 11]     writes a sheet, each picture above its neon one

Only the page differs from the ordinary pictures: the same random choices are made, so every
caption has the same words and every object the same place, size and colour. The caption's
background colour is said and not shown: that is what the style means.
"""

import argparse
import math
import random
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.dataset import Sample, sample, sheet, training
from training.page import OVERSAMPLING, Page
from training.palette import Colour

DARK: Colour = (6, 6, 12)
WIDTH = 7 * OVERSAMPLING
"""Of an outline, in drawing coordinates: 7 pixels of the picture."""
STEP = 80
"""Things that differ by less (of 255, in every channel) have no line between them."""
LEAST = 110
"""The brightest channel of a line is at least this: black things would be lost on the dark."""
GLOW_RADIUS = 4 * OVERSAMPLING
GLOW = 0.75
COLUMNS = 8
OTHERS = 0.25
"""The share of scenes, flowers and faces that is kept: most of the lesson is in the shapes."""

Values: TypeAlias = npt.NDArray[np.int16]


def _around(reach: int) -> list[tuple[int, int]]:
    """Where to look from a pixel: points on a circle of that radius and on one half as wide."""
    points = set()
    for radius, count in ((reach, 24), (reach / 2, 8)):
        for index in range(count):
            angle = index * math.tau / count
            points.add((round(radius * math.sin(angle)), round(radius * math.cos(angle))))
    return sorted(points)


def _largest(values: Values) -> Values:
    """Of each pixel, the largest value among those around it, one line's width away."""
    height, width = values.shape
    padded = np.pad(values, WIDTH, mode="edge")
    found = values.copy()
    for dy, dx in _around(WIDTH):
        top, left = WIDTH + dy, WIDTH + dx
        np.maximum(found, padded[top : top + height, left : left + width], out=found)
    return found


def _ranks(pixels: Values, ground: Colour) -> Values:
    """Of each pixel, the place of its colour among all by how much it covers; ground is last."""
    red, green, blue = (channel.astype(np.int64) for channel in np.moveaxis(pixels, -1, 0))
    code = red << 16 | green << 8 | blue
    colours, index, counts = np.unique(code, return_inverse=True, return_counts=True)
    counts[colours == ground[0] << 16 | ground[1] << 8 | ground[2]] = code.size + 1
    places = counts.argsort(kind="stable").argsort()
    return places[index.reshape(code.shape)].astype(np.int16)


def lines(picture: Image.Image, ground: Colour) -> Image.Image:
    """The outlines of all that is not ground, in its colours, on black.

    Where two colours meet, the one that covers less of the picture has the line: it is the
    thing that lies on the other. A line is drawn within its thing.
    """
    pixels = np.asarray(picture).astype(np.int16)
    ranks = _ranks(pixels, ground)
    higher = _largest(ranks)
    channels = np.moveaxis(pixels, -1, 0)
    apart = np.max([np.maximum(_largest(c) - c, c + _largest(-c)) for c in channels], axis=0)
    shown = (higher > ranks) & ((apart > STEP) | (higher == ranks.max()))
    bright = pixels * np.maximum(1.0, LEAST / np.maximum(pixels.max(axis=-1, keepdims=True), 1))
    return Image.fromarray(np.where(shown[..., None], bright, 0).astype(np.uint8))


class _Pen(ImageDraw.ImageDraw):
    """Draws lines in the ground's colour: gradients are made of them, and light is no thing."""

    ground: Colour = DARK

    def line(self, xy: Any, *_args: Any, **_options: Any) -> None:
        super().line(xy, fill=self.ground)


class NeonPage(Page):
    """A page whose finished picture is in the neon style."""

    def __init__(self, *, ink: bool = True) -> None:
        super().__init__(ink=ink)
        self.draw: _Pen = _Pen(self._image)

    def start(self, colour: Colour) -> ImageDraw.ImageDraw:
        """As an ordinary page's; the colour is remembered as the ground."""
        self.draw.ground = colour
        return super().start(colour)

    def picture(self) -> Image.Image:
        """The finished picture, SIDE pixels wide and high."""
        drawn = lines(self._image, self.draw.ground)
        glow = drawn.filter(ImageFilter.GaussianBlur(GLOW_RADIUS)).point(lambda v: GLOW * v)
        dark = Image.new("RGB", drawn.size, DARK)
        lit = ImageChops.add(dark, ImageChops.lighter(drawn, glow))
        return lit.reduce(OVERSAMPLING)


def neon(rng: random.Random) -> Sample:
    """The generator's next picture without a held-out combination, in the neon style.

    Most scenes, flowers and faces are left out.
    """
    while True:
        state = rng.getstate()
        other = training(rng, ink=False).truth.kind == "other"
        if other and rng.random() >= OTHERS:
            continue
        rng.setstate(state)
        return training(rng, NeonPage)


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Draws a sheet of the neon style.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    plain, styled = random.Random(options.seed), random.Random(options.seed)
    rows: list[Sample] = []
    for _ in range(3):
        rows += [sample(plain) for _ in range(COLUMNS)]
        rows += [sample(styled, NeonPage) for _ in range(COLUMNS)]
    sheet(rows, COLUMNS).save(options.file)


if __name__ == "__main__":
    main()
