"""Which shape an outline is: the best overlap with the eleven shapes after fitting it to them.

An outline is moved to the middle of a small grid and scaled to a fixed area. The templates are
the shapes of the training pictures, put on the same grid in the same way, each in some sizes
and places around that fit, since a blurred edge moves the area and the middle a little.
"""

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from training.page import LARGE, Page
from training.shapes import SHAPES, Spot, draw_shape

Mask: TypeAlias = npt.NDArray[np.bool_]
Grid: TypeAlias = npt.NDArray[np.float32]

GRID = 64
AREA = 900.0
"""Pixels of the grid that a fitted outline covers: small enough for a thin ring to fit in."""

SCALES = (0.86, 0.93, 1.0, 1.07, 1.14)
SHIFTS = (-2.0, 0.0, 2.0)


def fit(mask: Mask, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Grid:
    """The outline on the grid: its middle in the middle, its area AREA times scale squared."""
    ys, xs = np.nonzero(mask)
    # Pixels of the mask per pixel of the grid.
    step = float(np.sqrt(len(xs) / AREA)) / scale
    left = xs.mean() + 0.5 - step * (GRID / 2 + shift[0])
    top = ys.mean() + 0.5 - step * (GRID / 2 + shift[1])
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    moved = image.transform(
        (GRID, GRID),
        Image.Transform.AFFINE,
        (step, 0.0, left, 0.0, step, top),
        resample=Image.Resampling.BILINEAR,
    )
    return (np.asarray(moved) >= 128).astype(np.float32).ravel()


def outline(shape: str) -> Mask:
    """The shape as a mask, drawn large."""
    page = Page()
    draw = page.start((0, 0, 0))
    draw_shape(draw, shape, Spot(LARGE / 2, LARGE / 2, 0.3 * LARGE), (255, 255, 255), (0, 0, 0))
    return np.asarray(page.picture().convert("L")) >= 128


@lru_cache(maxsize=1)
def templates() -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """The names and the grids of all templates. A ball has a circle's outline: it has none."""
    names, grids = [], []
    for shape in SHAPES:
        if shape == "ball":
            continue
        mask = outline(shape)
        for scale in SCALES:
            for dx in SHIFTS:
                for dy in SHIFTS:
                    names.append(shape)
                    grids.append(fit(mask, scale, (dx, dy)))
    return tuple(names), np.stack(grids)


def overlaps(mask: Mask) -> dict[str, float]:
    """For each shape, the best overlap with the outline: shared area over joint area."""
    names, grids = templates()
    fitted = fit(mask)
    shared = grids @ fitted
    joint = grids.sum(axis=1) + fitted.sum() - shared
    best: dict[str, float] = {}
    for name, value in zip(names, shared / joint, strict=True):
        best[name] = max(best.get(name, 0.0), float(value))
    return best
