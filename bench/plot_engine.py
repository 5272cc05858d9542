"""Draws what `engine.py --json FILE` measured: pictures a second by the size of the active set.

python bench/plot_engine.py FILE.json docs/performance-engine.svg
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plot_serving import COLOURS, line, text

WIDTH, HEIGHT = 330, 190
LEFT, TOP, RIGHT, BOTTOM = 52, 30, 120, 44
LABEL_GAP = 15
ENGINE, BATCHED, ALONE = COLOURS["sdq"], COLOURS["litserve"], COLOURS["ray"]


class Plane:
    """Active sets on a logarithmic scale, rates from zero."""

    def __init__(self, sets: Sequence[int], rates: Sequence[float]) -> None:
        self._sets = sets
        self._step = nice_step(max(rates))
        self._top = self._step * math.ceil(max(rates) / self._step)

    def x(self, size: float) -> float:
        low, high = math.log(self._sets[0]), math.log(self._sets[-1])
        return LEFT + WIDTH * (math.log(size) - low) / ((high - low) or 1)

    def y(self, rate: float) -> float:
        return TOP + HEIGHT * (1 - rate / self._top)

    def frame(self) -> Iterator[str]:
        for number in range(round(self._top / self._step) + 1):
            rate = number * self._step
            yield line(LEFT, self.y(rate), LEFT + WIDTH, self.y(rate), opacity=0.35)
            yield text(LEFT - 6, self.y(rate) + 4, f"{rate:g}", anchor="end")
        for size in self._sets:
            yield line(self.x(size), self.y(0), self.x(size), self.y(0) + 4)
            yield text(self.x(size), self.y(0) + 17, str(size), anchor="middle")
        middle = LEFT + WIDTH / 2
        yield text(
            middle, TOP + HEIGHT + 36, "pictures in the active set, or batch", anchor="middle"
        )

    def curve(self, rates: Sequence[float], colour: str) -> str:
        places = [
            f"{self.x(s):.1f} {self.y(r):.1f}" for s, r in zip(self._sets, rates, strict=True)
        ]
        return f'<path d="M{"L".join(places)}" fill="none" stroke="{colour}" stroke-width="2"/>'


def nice_step(most: float) -> float:
    """1, 2 or 5 times a power of ten: four to eight of it to the top."""
    power = 10 ** math.floor(math.log10(most / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 8)


def svg_of(found: dict[str, Any]) -> str:
    measured = found["active_sets"]
    rows = measured["rows"]
    sets = [row["active_set"] for row in rows]
    curves = {
        ("sdq's engine", ENGINE): [row["engine"] for row in rows],
        ("static batches", BATCHED): [row["batched"] for row in rows],
        ("one by one", ALONE): [measured["one_by_one"]] * len(rows),
    }
    plane = Plane(sets, [rate for rates in curves.values() for rate in rates])
    drawn = f"{found['model']} {found['side']} × {found['side']}, {measured['steps']} steps"
    parts = [
        "<title>Pictures a second by the size of the active set</title>",
        text(6, 16, f"pictures a second; {drawn}, {found['device']}"),
        *plane.frame(),
    ]
    lowest = -math.inf  # names beside their lines, none upon another
    for (name, colour), rates in sorted(curves.items(), key=lambda curve: -curve[1][-1]):
        lowest = max(plane.y(rates[-1]) + 4, lowest + LABEL_GAP)
        parts += [
            plane.curve(rates, colour),
            text(LEFT + WIDTH + 8, lowest, name, colour=colour),
        ]
    width, height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="12">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    found = json.loads(options.figures.read_text("utf-8"))
    options.picture.write_text(svg_of(found), "utf-8")


if __name__ == "__main__":
    main()
