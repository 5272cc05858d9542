"""Judges a picture by its pixels: background, colours, count, place and shape.

Everything that differs from the background is an object; objects are the connected pieces of
that. Nothing is learned here, and nothing but the picture and what was asked goes in.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from training.captions import PLACES
from training.page import LARGE, SIDE, Page
from training.palette import COLOURS
from training.shapes import Spot, draw_shape
from training.truth import Thing, Truth

from evaluation.outlines import Mask, overlaps

Pixels: TypeAlias = npt.NDArray[np.float64]
Rgb: TypeAlias = npt.NDArray[np.float64]

BORDER = 3
DIFFERENT = 45.0
"""Distance in RGB from which a pixel is no longer background (nearest two colours: 79)."""
SMALLEST = 40
SMALLEST_SHARE = 0.12
"""An object has at least so many pixels, and this share of the largest one's."""
SHADED = 40.0
"""A round object whose brightness varies by so much is a ball, else a circle."""
APART = 0.08 * SIDE
"""By how much one thing must be left of (or above) another to count as that."""


@dataclass(frozen=True)
class Item:
    """An object found in a picture; x and y (shares of the side) are of its bounding box."""

    mask: Mask
    rgb: Rgb
    x: float
    y: float
    shape: str


@dataclass(frozen=True)
class Verdict:
    """What of a picture is as asked; None where the prompt asks nothing of the sort."""

    background: bool
    colour: bool
    count: bool
    place: bool | None
    shape: bool

    @property
    def everything(self) -> bool:
        """Whether nothing is wrong."""
        asked = (self.background, self.colour, self.count, self.place, self.shape)
        return all(part is not False for part in asked)


def judge(picture: Image.Image, truth: Truth) -> Verdict:
    """Compares the picture with what was asked. Colours and shapes are right when all are."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    ground = _border_colour(pixels)
    if truth.relation == "inside":
        items = _nested(pixels, ground)
    else:
        items = _items(pixels, ground, np.ones(pixels.shape[:2], dtype=bool))
    count = len(items) == len(truth.things)
    pairs = _assign(items, truth.things)
    return Verdict(
        background=_nearest_colour(ground) == truth.background,
        colour=count and all(_is_colour(item, thing) for item, thing in pairs),
        count=count,
        place=_placed(pairs, truth),
        shape=count and all(item.shape == thing.shape for item, thing in pairs),
    )


def _border_colour(pixels: Pixels) -> Rgb:
    """The median colour of the picture's outermost pixels."""
    edge = np.ones(pixels.shape[:2], dtype=bool)
    edge[BORDER:-BORDER, BORDER:-BORDER] = False
    return _median(pixels, edge)


def _median(pixels: Pixels, mask: Mask) -> Rgb:
    return np.asarray(np.median(pixels[mask], axis=0), dtype=np.float64)


def _distance(pixels: Pixels, colour: Rgb) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(((pixels - colour) ** 2).sum(axis=-1)), dtype=np.float64)


def _nearest_colour(rgb: Rgb) -> str:
    return min(COLOURS, key=lambda name: float(_distance(np.array(COLOURS[name]), rgb)))


def pieces(mask: Mask) -> list[Mask]:
    """The connected pieces of the mask (four neighbours), largest first."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found: list[Mask] = []
    while left:
        piece = np.zeros_like(mask)
        stack = [left.pop()]
        while stack:
            y, x = stack.pop()
            piece[y, x] = True
            for neighbour in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if neighbour in left:
                    left.remove(neighbour)
                    stack.append(neighbour)
        found.append(piece)
    return sorted(found, key=lambda piece: int(piece.sum()), reverse=True)


def _items(pixels: Pixels, ground: Rgb, region: Mask) -> list[Item]:
    """The objects within the region that differ from the ground."""
    distance = _distance(pixels, ground)
    rough = _large(pieces((distance > DIFFERENT) & region))
    found = [part for piece in rough for part in _parts(distance, piece)]
    return [_item(pixels, piece) for piece in _large(found)]


def _large(found: list[Mask]) -> list[Mask]:
    """The pieces without specks."""
    least = max(SMALLEST, SMALLEST_SHARE * max((int(piece.sum()) for piece in found), default=0))
    return [piece for piece in found if piece.sum() >= least]


def _parts(distance: npt.NDArray[np.float64], piece: Mask) -> list[Mask]:
    """The piece with its edge where it is half as far from the ground as inside.

    That cuts off a faint haze, which may have joined two objects into one piece.
    """
    typical = float(np.median(distance[piece]))
    return pieces(piece & (distance > max(DIFFERENT, 0.5 * typical)))


def _item(pixels: Pixels, mask: Mask) -> Item:
    """Measures one object."""
    ys, xs = np.nonzero(mask)
    scores = overlaps(mask)
    shape = max(scores, key=lambda name: scores[name])
    if shape == "circle" and _spread(pixels, mask) > SHADED:
        shape = "ball"
    x, y = (xs.min() + xs.max() + 1) / 2 / SIDE, (ys.min() + ys.max() + 1) / 2 / SIDE
    return Item(mask, _median(pixels, shrink(mask, 2)), float(x), float(y), shape)


def shrink(mask: Mask, times: int) -> Mask:
    """The mask without its outermost pixels; unchanged where nothing would be left."""
    inner = mask
    for _ in range(times):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner if inner.any() else mask


def filled(mask: Mask) -> Mask:
    """The mask with its holes filled: all that is not joined to the picture's border."""
    outside = np.zeros_like(np.pad(mask, 1))
    for piece in pieces(~np.pad(mask, 1)):
        if piece[0, 0]:
            outside = piece
    return ~outside[1:-1, 1:-1]


def _spread(pixels: Pixels, mask: Mask) -> float:
    """How far the brightness varies within the object, its edge left out."""
    brightness = pixels[shrink(mask, 3)].mean(axis=-1)
    low, high = np.percentile(brightness, [10, 90])
    return float(high - low)


def _nested(pixels: Pixels, ground: Rgb) -> list[Item]:
    """The object in the middle of the only large object, and that one, as inner and outer."""
    outer = _items(pixels, ground, np.ones(pixels.shape[:2], dtype=bool))
    if len(outer) != 1:
        return outer
    whole = filled(outer[0].mask)
    rim = shrink(whole, 2) & ~shrink(whole, 6)
    rgb = _median(pixels, rim)
    inner = _items(pixels, rgb, shrink(whole, 6))
    scores = overlaps(whole)
    shape = max(scores, key=lambda name: scores[name])
    return [*inner, Item(whole, rgb, outer[0].x, outer[0].y, shape)]


def _assign(items: list[Item], things: tuple[Thing, ...]) -> list[tuple[Item, Thing]]:
    """Which object is which of the things asked for: the choice that fits the colours best."""
    if len(items) != len(things):
        return []
    best = min(
        permutations(items),
        key=lambda order: sum(_off(item, thing) for item, thing in zip(order, things, strict=True)),
    )
    return list(zip(best, things, strict=True))


@lru_cache(maxsize=1)
def _ball_colours() -> dict[str, Rgb]:
    """The median colour of a ball in each colour, which is darker than the colour itself."""
    found = {}
    for name, colour in COLOURS.items():
        page = Page()
        behind = (255, 0, 255)
        spot = Spot(LARGE / 2, LARGE / 2, 0.25 * LARGE)
        draw_shape(page.start(behind), "ball", spot, colour, behind)
        pixels = np.asarray(page.picture(), dtype=np.float64)
        found[name] = _median(pixels, _distance(pixels, np.array(behind)) > DIFFERENT)
    return found


def _off(item: Item, thing: Thing) -> float:
    """How far the object's colour is from the one asked, whether painted flat or as a ball."""
    off = float(_distance(np.array(COLOURS[thing.colour]), item.rgb))
    if "ball" in (thing.shape, item.shape):
        off = min(off, float(_distance(_ball_colours()[thing.colour], item.rgb)))
    return off


def _is_colour(item: Item, thing: Thing) -> bool:
    asked = _off(item, thing)
    return all(asked <= _off(item, Thing(thing.shape, name)) for name in COLOURS)


def _placed(pairs: list[tuple[Item, Thing]], truth: Truth) -> bool | None:
    """Whether the things stand where asked; None where the prompt says nothing about it."""
    if truth.place:
        return bool(pairs) and _nearest_place(pairs[0][0]) == truth.place
    if truth.relation in ("", "and"):
        return None
    if len(pairs) != 2:
        return False
    first, second = pairs[0][0], pairs[1][0]
    dx, dy = (second.x - first.x) * SIDE, (second.y - first.y) * SIDE
    if truth.relation == "inside":
        inside = (first.mask & second.mask).sum() > 0.9 * first.mask.sum()
        return bool(inside and first.mask.sum() < second.mask.sum())
    return {"left": dx, "right": -dx, "above": dy, "below": -dy}[truth.relation] > APART


def _nearest_place(item: Item) -> str:
    def off(name: str) -> float:
        x, y = PLACES[name]
        return (item.x - x) ** 2 + (item.y - y) ** 2

    return min(PLACES, key=off)
