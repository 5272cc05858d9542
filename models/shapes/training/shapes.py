"""The eleven shapes, each drawn from its middle and its radius."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from PIL import ImageDraw

from training.palette import BLACK, WHITE, Colour, mix

Point: TypeAlias = tuple[float, float]


class Spot(NamedTuple):
    """Where a shape goes and how large it is, in drawing coordinates."""

    x: float
    y: float
    radius: float

    def box(self, part: float = 1.0) -> tuple[float, float, float, float]:
        """The square about the middle, `part` times as large as the radius says."""
        reach = part * self.radius
        return self.x - reach, self.y - reach, self.x + reach, self.y + reach


Painter: TypeAlias = Callable[[ImageDraw.ImageDraw, Spot, Colour, Colour], None]


def polygon(spot: Spot, corners: int, rotation: float = -90.0, inner: float = 0.0) -> list[Point]:
    """The corners of a regular polygon, or of a star where `inner` is not zero."""
    count = corners * (2 if inner else 1)
    points = []
    for index in range(count):
        angle = math.radians(rotation + index * 360 / count)
        reach = spot.radius * (inner if inner and index % 2 else 1)
        points.append((spot.x + reach * math.cos(angle), spot.y + reach * math.sin(angle)))
    return points


def _circle(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    draw.ellipse(spot.box(), fill=colour)


def _square(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    draw.rectangle(spot.box(0.86), fill=colour)


def _triangle(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    x, y, radius = spot
    draw.polygon(polygon(Spot(x, y + 0.15 * radius, 1.15 * radius), 3), fill=colour)


def _star(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    x, y, radius = spot
    draw.polygon(polygon(Spot(x, y, 1.1 * radius), 5, inner=0.42), fill=colour)


def _diamond(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    x, y, r = spot
    corners = [(x, y - 1.1 * r), (x + 0.8 * r, y), (x, y + 1.1 * r), (x - 0.8 * r, y)]
    draw.polygon(corners, fill=colour)


def _heart(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    x, y, r = spot
    points = []
    for index in range(60):
        t = index * math.tau / 60
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x + r * math.sin(t) ** 3, y - r / 16 * height - 0.06 * r))
    draw.polygon(points, fill=colour)


def _ring(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, behind: Colour) -> None:
    draw.ellipse(spot.box(), fill=colour)
    draw.ellipse(spot.box(0.55), fill=behind)


def _cross(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    x, y, r = spot
    half = 0.34 * r
    draw.rectangle((x - r, y - half, x + r, y + half), fill=colour)
    draw.rectangle((x - half, y - r, x + half, y + r), fill=colour)


def _hexagon(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    draw.polygon(polygon(spot, 6, rotation=0), fill=colour)


def _crescent(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, behind: Colour) -> None:
    x, y, r = spot
    draw.ellipse(spot.box(), fill=colour)
    draw.ellipse((x - 0.45 * r, y - 1.05 * r, x + 1.35 * r, y + 0.75 * r), fill=behind)


def _ball(draw: ImageDraw.ImageDraw, spot: Spot, colour: Colour, _behind: Colour) -> None:
    """A sphere lit from the upper left: discs from dark to light, smaller and smaller."""
    x, y, r = spot
    dark, light = mix(colour, BLACK, 0.45), mix(colour, WHITE, 0.6)
    for index in range(14):
        t = index / 13
        reach, shift = r * (1 - t * 0.92), 0.38 * r * t
        box = Spot(x - shift, y - shift, reach).box()
        draw.ellipse(box, fill=mix(dark, light, t))


PAINTERS: dict[str, Painter] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "diamond": _diamond,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
    "hexagon": _hexagon,
    "crescent": _crescent,
    "ball": _ball,
}
SHAPES: tuple[str, ...] = tuple(PAINTERS)


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, spot: Spot, colour: Colour, behind: Colour
) -> None:
    """Draws one shape; `behind` is the colour it lies on, which shows through a ring's hole."""
    PAINTERS[shape](draw, spot, colour, behind)
