"""Draws what `serving.py --json FILE` measured: how many of the pictures were there, and when.

One panel for each load, one line for each system: the share of the pictures (all rounds together)
whose latency is at most so long. Where a line crosses 50 % is its median, 95 % its p95. The SVG
has no background and colours of a middle lightness, so it is legible on light and dark pages.

    python bench/plot_serving.py FILE.json docs/performance-serving.svg
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

GREY = "#808890"
COLOURS = {"sdq": "#1f9d6b", "litserve": "#c77d0a", "ray": "#4f8fe6", "ray-by-steps": "#b569c4"}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
"""Seconds, on a logarithmic scale."""

PANEL_WIDTH, PANEL_HEIGHT, GAP = 220, 170, 22
LEFT, TOP, BOTTOM = 44, 52, 40


class Panel:
    """One load. ``low`` and ``high`` are the ends of the scale in seconds."""

    def __init__(self, left: float, low: float, high: float) -> None:
        self._left = left
        self._low, self._high = math.log(low), math.log(high)

    def x(self, seconds: float) -> float:
        share = (math.log(max(seconds, 1e-3)) - self._low) / (self._high - self._low)
        return self._left + PANEL_WIDTH * min(1.0, max(0.0, share))

    @staticmethod
    def y(share: float) -> float:
        return TOP + PANEL_HEIGHT * (1 - share)

    def frame(self, title: str, deadline_seconds: float, *, is_first: bool) -> Iterator[str]:
        right = self._left + PANEL_WIDTH
        yield text(self._left + PANEL_WIDTH / 2, TOP - 8, title, anchor="middle")
        for share in (0, 0.5, 0.95, 1):
            yield line(self._left, self.y(share), right, self.y(share), opacity=0.35)
            if is_first and share not in (0, 1):
                yield text(self._left - 6, self.y(share) + 4, f"{share:.0%}", anchor="end")
        for tick in TICKS:
            if self._low <= math.log(tick) <= self._high:
                yield line(self.x(tick), self.y(0), self.x(tick), self.y(0) + 4)
                yield text(self.x(tick), self.y(0) + 17, f"{tick:g} s", anchor="middle")
        x = self.x(deadline_seconds)
        yield line(x, self.y(0), x, self.y(1), dash="3 3")
        yield text(x + 4, self.y(0) - 5, "deadline")

    def curve(self, seconds: Sequence[float], colour: str) -> str:
        """Rises by one picture at each latency; one that never came keeps it below 100 %."""
        came = sorted(value for value in seconds if value < math.inf)
        path = f"M{self.x(came[0] if came else 1):.1f} {self.y(0):.1f}"
        for number, value in enumerate(came, 1):
            path += f"H{self.x(value):.1f}V{self.y(number / len(seconds)):.1f}"
        return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'


def line(
    x1: float, y1: float, x2: float, y2: float, *, dash: str = "", opacity: float = 1.0
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{GREY}" opacity="{opacity}"'
        f"{dashes}/>"
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = GREY) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def seconds_of(document: dict[str, Any], system: str, load: int) -> list[float]:
    return [
        math.inf if seconds is None else seconds
        for run in document["runs"]
        if run["system"] == system and run["load_percent"] == load
        for seconds in run["latency_seconds"]
    ]


def drawing(document: dict[str, Any]) -> str:
    loads, names = document["loads"], document["names"]
    every = [
        seconds for name in names for load in loads for seconds in seconds_of(document, name, load)
    ]
    known = [seconds for seconds in every if seconds < math.inf] or [1.0]
    low, high = min(known) / 1.2, max(*known, document["deadline_seconds"]) * 1.1
    parts: list[str] = []
    for number, load in enumerate(loads):
        panel = Panel(LEFT + number * (PANEL_WIDTH + GAP), low, high)
        offered = next(
            run["offered_per_second"] for run in document["runs"] if run["load_percent"] == load
        )
        title = f"{load} % load, {offered:.2f} pictures/s"
        parts += panel.frame(title, document["deadline_seconds"], is_first=number == 0)
        for name in reversed(names):
            parts.append(panel.curve(seconds_of(document, name, load), COLOURS[name]))
    x = float(LEFT)
    for name, words in names.items():
        parts.append(f'<path d="M{x:.0f} 14h18" stroke="{COLOURS[name]}" stroke-width="3"/>')
        parts.append(text(x + 24, 18, words, colour=COLOURS[name]))
        x += 48 + 7 * len(words)
    width = LEFT + len(loads) * (PANEL_WIDTH + GAP)
    height = TOP + PANEL_HEIGHT + BOTTOM
    parts.append(
        text(
            width - GAP, height - 6, "latency from arrival to the picture's last byte", anchor="end"
        )
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="12">\n'
        "<title>Latency of pictures under load, sdq beside other servers</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.write_text(drawing(json.loads(options.measured.read_text())))
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
