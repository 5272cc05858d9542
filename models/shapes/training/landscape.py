"""Skies and grounds of the scenes.

As in `pictures`, the order of the random choices is part of the recipe.
"""

import random
from dataclasses import dataclass

from PIL import ImageDraw

from training.page import LARGE, Page, gradient
from training.palette import BLACK, WHITE, Colour, mix, vary
from training.shapes import Spot, draw_shape

SKY_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "day": ((80, 160, 240), (200, 230, 252)),
    "night": ((8, 12, 40), (38, 46, 98)),
    "sunset": ((96, 56, 130), (252, 150, 70)),
}
SKIES = {
    "day": ["sun", "sun", "clouds", "rainbow", ""],
    "night": ["moon", "full moon", "stars", "stars", ""],
    "sunset": ["sun", "sun", "clouds", ""],
}
GROUNDS = ["sea", "hills", "mountains", "snowy mountains", "desert", "field", "snow", "city"]
SEA = {"day": (36, 120, 200), "night": (14, 30, 84), "sunset": (120, 70, 120)}
FAR = {
    "hills": (96, 176, 84),
    "field": (150, 190, 80),
    "desert": (236, 196, 120),
    "snow": (226, 234, 246),
}
NEAR = {
    "hills": (62, 146, 62),
    "field": (118, 168, 60),
    "desert": (222, 170, 92),
    "snow": (244, 247, 252),
    "city": (52, 54, 62),
}
WALLS = [(96, 104, 124), (120, 112, 116), (84, 92, 112)]
RAINBOW = [
    (228, 50, 50),
    (245, 140, 40),
    (250, 216, 60),
    (60, 176, 80),
    (50, 110, 230),
    (130, 70, 190),
]
LAMPLIGHT: Colour = (255, 222, 110)


def tint(colour: Colour, time: str) -> Colour:
    """The colour in the light of that time of day."""
    if time == "night":
        return mix(colour, (14, 18, 52), 0.62)
    return mix(colour, (150, 62, 52), 0.32) if time == "sunset" else colour


@dataclass
class Landscape:
    """A scene in the making: what it shows, its light, and where things go."""

    rng: random.Random
    draw: ImageDraw.ImageDraw
    time: str
    ground: str
    top: Colour
    bottom: Colour
    horizon: float
    sky: str
    light_x: float = 0.0
    light_y: float = 0.0

    def shade(self, colour: Colour) -> Colour:
        """The colour, varied a little, in the scene's light."""
        return tint(vary(self.rng, colour, 8), self.time)


def begin(rng: random.Random, page: Page) -> Landscape:
    """Chooses time, ground and sky, and paints the sky with all that is in it."""
    time = rng.choice(["day", "day", "night", "night", "sunset"])
    ground = rng.choice(GROUNDS)
    top, bottom = (vary(rng, colour, 8) for colour in SKY_COLOURS[time])
    draw = page.start(bottom)
    horizon = rng.uniform(0.56, 0.66) * LARGE
    gradient(draw, (0, 0, LARGE, horizon + 0.1 * LARGE), top, bottom)
    sky = rng.choice(SKIES[time])
    land = Landscape(rng, draw, time, ground, top, bottom, horizon, sky)
    if time == "night" and (sky == "stars" or (rng.random() < 0.3 and sky)):
        _stars(land)
    land.light_x = rng.choice([0.25, 0.5, 0.75]) * LARGE + rng.uniform(-0.04, 0.04) * LARGE
    at_horizon = horizon - 0.03 * LARGE
    land.light_y = at_horizon if time == "sunset" else rng.uniform(0.18, 0.27) * LARGE
    if sky == "sun":
        _sun(land)
    elif sky in ("moon", "full moon"):
        shape = "circle" if sky == "full moon" else "crescent"
        spot = Spot(land.light_x, land.light_y, 0.085 * LARGE)
        draw_shape(draw, shape, spot, (246, 240, 206), mix(top, bottom, land.light_y / horizon))
    elif sky == "clouds":
        _clouds(land)
    elif sky == "rainbow":
        _rainbow(land)
    return land


def _stars(land: Landscape) -> None:
    rng = land.rng
    for _ in range(26 if land.sky == "stars" else 8):
        x, y = rng.uniform(0, LARGE), rng.uniform(0, land.horizon * 0.85)
        spot = Spot(x, y, rng.uniform(0.006, 0.012) * LARGE)
        land.draw.ellipse(spot.box(), fill=(250, 250, 220))


def _sun(land: Landscape) -> None:
    colour = (255, 214, 70) if land.time == "day" else (255, 196, 84)
    behind = mix(land.top, land.bottom, min(1, land.light_y / land.horizon))
    for index in range(5):
        spot = Spot(land.light_x, land.light_y, (0.16 - 0.012 * index) * LARGE)
        land.draw.ellipse(spot.box(), fill=mix(behind, colour, 0.12 + 0.1 * index))
    land.draw.ellipse(Spot(land.light_x, land.light_y, 0.1 * LARGE).box(), fill=colour)


def _clouds(land: Landscape) -> None:
    rng = land.rng
    colour = (252, 252, 255) if land.time == "day" else (250, 190, 160)
    for x_share, y_share in ((0.24, 0.2), (0.7, 0.28), (0.52, 0.1)):
        x = (x_share + rng.uniform(-0.06, 0.06)) * LARGE
        y = (y_share + rng.uniform(-0.03, 0.03)) * LARGE
        size = rng.uniform(0.8, 1.1) * LARGE
        for dx, dy, q in ((-0.08, 0.01, 0.045), (0, -0.015, 0.06), (0.08, 0.01, 0.045)):
            box = x + (dx - q) * size, y + (dy - q) * size, x + (dx + q) * size, y + (dy + q) * size
            land.draw.ellipse(box, fill=colour)


def _rainbow(land: Landscape) -> None:
    middle = 0.5 * LARGE
    for index, colour in enumerate(RAINBOW):
        spot = Spot(middle, land.horizon, (0.44 - 0.026 * index) * LARGE)
        land.draw.ellipse(spot.box(), fill=colour)
    spot = Spot(middle, land.horizon, (0.44 - 0.026 * 6) * LARGE)
    land.draw.ellipse(spot.box(), fill=mix(land.top, land.bottom, 0.8))


def paint_ground(land: Landscape) -> float:
    """Paints the ground and returns the height at which things stand on it."""
    if land.ground == "sea":
        return _sea(land)
    if land.ground in ("hills", "desert", "snow"):
        return _rolling(land)
    if land.ground == "field":
        box = 0, land.horizon, LARGE, LARGE
        far, near = land.shade(FAR["field"]), land.shade(NEAR["field"])
        gradient(land.draw, box, far, near)
        return land.horizon + 0.1 * LARGE
    if land.ground == "city":
        return _city(land)
    return _mountains(land)


def _sea(land: Landscape) -> float:
    rng, draw, horizon, water = land.rng, land.draw, land.horizon, SEA[land.time]
    far, near = mix(water, land.bottom, 0.25), mix(water, BLACK, 0.25)
    gradient(draw, (0, horizon, LARGE, LARGE), far, near)
    for index in range(7):
        y = horizon + (0.03 + 0.05 * index) * LARGE
        x, width = rng.uniform(0, 0.8) * LARGE, rng.uniform(0.1, 0.22) * LARGE
        draw.rectangle((x, y, x + width, y + 0.008 * LARGE), fill=mix(water, WHITE, 0.35))
    if land.sky in ("sun", "moon", "full moon"):
        glitter = mix(water, (255, 226, 150), 0.7)
        for index in range(5):
            y = horizon + (0.03 + 0.06 * index) * LARGE
            half = (0.09 - 0.012 * index) * LARGE
            box = land.light_x - half, y, land.light_x + half, y + 0.014 * LARGE
            draw.rectangle(box, fill=glitter)
    return horizon


def _rolling(land: Landscape) -> float:
    rng, draw, horizon = land.rng, land.draw, land.horizon
    for x_share, width, height in ((0.1, 0.5, 0.16), (0.85, 0.55, 0.2)):
        x = (x_share + rng.uniform(-0.05, 0.05)) * LARGE
        left, right = x - width * LARGE, x + width * LARGE
        box = left, horizon - height * LARGE * 0.7, right, horizon + 0.9 * LARGE
        draw.ellipse(box, fill=land.shade(FAR[land.ground]))
    box = -0.5 * LARGE, horizon + 0.04 * LARGE, 1.5 * LARGE, horizon + 1.4 * LARGE
    draw.ellipse(box, fill=land.shade(NEAR[land.ground]))
    return horizon + 0.09 * LARGE


def _city(land: Landscape) -> float:
    rng, draw, horizon = land.rng, land.draw, land.horizon
    x = 0.0
    while x < LARGE:
        width, height = rng.uniform(0.1, 0.17) * LARGE, rng.uniform(0.16, 0.42) * LARGE
        box = x, horizon - height + 0.06 * LARGE, x + width - 3, LARGE
        draw.rectangle(box, fill=land.shade(rng.choice(WALLS)))
        _windows(land, x, width, height)
        x += width
    draw.rectangle((0, horizon + 0.1 * LARGE, LARGE, LARGE), fill=land.shade(NEAR["city"]))
    return horizon


def _windows(land: Landscape, x: float, width: float, height: float) -> None:
    light = (190, 220, 240) if land.time == "day" else LAMPLIGHT
    top, bottom = land.horizon - height + 0.09 * LARGE, land.horizon + 0.02 * LARGE
    left, right = x + 0.02 * LARGE, x + width - 0.03 * LARGE
    for wy in range(int(top), int(bottom), int(0.055 * LARGE)):
        for wx in range(int(left), int(right), int(0.04 * LARGE)):
            if land.rng.random() < 0.7:
                box = wx, wy, wx + 0.018 * LARGE, wy + 0.026 * LARGE
                land.draw.rectangle(box, fill=light)


def _mountains(land: Landscape) -> float:
    rng, draw = land.rng, land.draw
    foot = land.horizon + 0.08 * LARGE
    for x_share, h_share in ((0.2, 0.36), (0.8, 0.32), (0.5, 0.44)):
        x = (x_share + rng.uniform(-0.05, 0.05)) * LARGE
        height = (h_share + rng.uniform(-0.04, 0.04)) * LARGE
        peak, half = foot - height, 0.36 * LARGE
        corners = [(x - half, foot), (x + half, foot), (x, peak)]
        draw.polygon(corners, fill=land.shade((112, 112, 132)))
        if land.ground == "snowy mountains":
            part = 0.4
            edge, notch = foot - height * (1 - part), foot - height * 0.72
            cap = [(x - half * part, edge), (x, notch), (x + half * part, edge), (x, peak)]
            draw.polygon(cap, fill=tint((246, 248, 252), land.time))
    box = 0, land.horizon + 0.07 * LARGE, LARGE, LARGE
    draw.rectangle(box, fill=land.shade((92, 150, 80)))
    return land.horizon + 0.14 * LARGE
