"""Scenes: a landscape, what stands in it, and how the caption tells of both.

As in `pictures`, the order of the random choices is part of the recipe: every choice is made
even where its result goes unused.
"""

import random

from PIL import ImageDraw

from training.captions import with_article
from training.landscape import LAMPLIGHT, Landscape, begin, paint_ground, tint
from training.page import LARGE, Page
from training.palette import COLOURS, Colour
from training.shapes import Spot
from training.truth import Truth

LEAVES: dict[str, Colour] = {
    "tree": (44, 132, 56),
    "autumn tree": (226, 122, 36),
    "cherry tree": (244, 150, 190),
}
OBJECTS = {
    "sea": ["sailboat"],
    "desert": ["cactus", "pyramid"],
    "city": ["tree"],
    "snow": ["pine tree", "house", "snowman"],
}
USUAL_OBJECTS = ["house", "tree", "pine tree", "red house", "autumn tree", "cherry tree"]


def _tree(draw: ImageDraw.ImageDraw, spot: Spot, time: str, leaf: Colour) -> None:
    x, y, h = spot
    draw.rectangle((x - 0.06 * h, y - 0.45 * h, x + 0.06 * h, y), fill=tint((110, 70, 40), time))
    for dx, dy, q in ((-0.2, -0.5, 0.22), (0.2, -0.5, 0.22), (0, -0.72, 0.27)):
        box = x + (dx - q) * h, y + (dy - q) * h, x + (dx + q) * h, y + (dy + q) * h
        draw.ellipse(box, fill=tint(leaf, time))


def _pine(draw: ImageDraw.ImageDraw, spot: Spot, time: str) -> None:
    x, y, h = spot
    draw.rectangle((x - 0.05 * h, y - 0.2 * h, x + 0.05 * h, y), fill=tint((100, 64, 36), time))
    for index in range(3):
        foot, half = y - (0.14 + 0.25 * index) * h, (0.34 - 0.08 * index) * h
        corners = [(x - half, foot), (x + half, foot), (x, foot - 0.42 * h)]
        draw.polygon(corners, fill=tint((28, 100, 60), time))


def _house(draw: ImageDraw.ImageDraw, spot: Spot, time: str, wall: Colour, roof: Colour) -> None:
    x, y, h = spot
    half = 0.5 * h
    draw.rectangle((x - half, y - 0.62 * h, x + half, y), fill=tint(wall, time))
    eaves = y - 0.6 * h
    corners = [(x - 1.2 * half, eaves), (x + 1.2 * half, eaves), (x, y - 1.12 * h)]
    draw.polygon(corners, fill=tint(roof, time))
    draw.rectangle((x - 0.1 * h, y - 0.34 * h, x + 0.1 * h, y), fill=tint((90, 56, 36), time))
    pane = LAMPLIGHT if time == "night" else tint((190, 226, 246), time)
    for dx in (-0.32, 0.32):
        box = x + (dx - 0.09) * h, y - 0.46 * h, x + (dx + 0.09) * h, y - 0.26 * h
        draw.rectangle(box, fill=pane)


def _sailboat(draw: ImageDraw.ImageDraw, x: float, y: float, time: str, sail: Colour) -> None:
    s = LARGE
    deck, keel = 0.16 * s, 0.1 * s
    hull = [(x - deck, y), (x + deck, y), (x + keel, y + 0.06 * s), (x - keel, y + 0.06 * s)]
    draw.polygon(hull, fill=tint((130, 76, 40), time))
    low = y - 0.02 * s
    draw.polygon([(x, y - 0.27 * s), (x, low), (x + 0.15 * s, low)], fill=tint(sail, time))
    mast = x - 0.015 * s
    draw.polygon([(mast, y - 0.22 * s), (mast, low), (x - 0.11 * s, low)], fill=tint(sail, time))


def _cactus(draw: ImageDraw.ImageDraw, x: float, y: float, time: str) -> None:
    s, half = LARGE, 0.035 * LARGE
    colour = tint((46, 132, 70), time)
    draw.rounded_rectangle((x - half, y - 0.3 * s, x + half, y), half, fill=colour)
    for side in (-1, 1):
        arm = x + side * 0.1 * s
        draw.rectangle((min(x, arm), y - 0.15 * s, max(x, arm), y - 0.11 * s), fill=colour)
        box = arm - 0.02 * s, y - 0.24 * s, arm + 0.02 * s, y - 0.11 * s
        draw.rounded_rectangle(box, 0.02 * s, fill=colour)


def _pyramid(draw: ImageDraw.ImageDraw, x: float, y: float, time: str) -> None:
    s = LARGE
    peak, edge = (x, y - 0.28 * s), (x + 0.08 * s, y)
    draw.polygon([(x - 0.24 * s, y), edge, peak], fill=tint((226, 184, 104), time))
    draw.polygon([edge, (x + 0.24 * s, y), peak], fill=tint((178, 136, 70), time))


def _snowman(draw: ImageDraw.ImageDraw, x: float, y: float, time: str) -> None:
    s = LARGE
    fill, outline = tint((222, 230, 242), time), tint((150, 165, 190), time)
    for dy, q in ((0, 0.085), (-0.12, 0.065), (-0.215, 0.045)):
        top, bottom = y + (dy - q) * s - 0.06 * s, y + (dy + q) * s - 0.06 * s
        draw.ellipse((x - q * s, top, x + q * s, bottom), fill=fill, outline=outline, width=2)
    for dx in (-0.016, 0.016):
        left, right = x + (dx - 0.007) * s, x + (dx + 0.007) * s
        draw.ellipse((left, y - 0.292 * s, right, y - 0.278 * s), fill=(20, 20, 20))
    nose = [(x, y - 0.278 * s), (x + 0.05 * s, y - 0.268 * s), (x, y - 0.262 * s)]
    draw.polygon(nose, fill=(240, 130, 40))


def _put(land: Landscape, name: str, x: float, y: float, height: float) -> str:
    """Draws the object and returns how the caption calls it."""
    rng, draw, time = land.rng, land.draw, land.time
    if name in LEAVES:
        _tree(draw, Spot(x, y, height * 1.1), time, LEAVES[name])
    elif name == "pine tree":
        _pine(draw, Spot(x, y, height * 1.15), time)
    elif name == "house":
        colour = rng.choice(["white", "yellow", "blue"])
        _house(draw, Spot(x, y, height * 0.85), time, COLOURS[colour], (170, 60, 48))
        return rng.choice(["house", f"{colour} house"])
    elif name == "red house":
        _house(draw, Spot(x, y, height * 0.85), time, COLOURS["red"], (90, 62, 54))
    elif name == "sailboat":
        sail = rng.choice(["white", "red"])
        _sailboat(draw, x, y + 0.05 * LARGE, time, COLOURS[sail])
        return ("" if sail == "white" else "red ") + rng.choice(["sailboat", "boat"])
    elif name == "cactus":
        _cactus(draw, x, y, time)
    elif name == "pyramid":
        _pyramid(draw, x, y, time)
    else:
        _snowman(draw, x, y, time)
    return name


def _objects(land: Landscape, base: float) -> list[str]:
    """Draws up to two objects and returns their names in a random order."""
    rng = land.rng
    names: list[str] = []
    count = rng.choice([0, 0, 1, 1, 2])
    spots = rng.sample([0.26, 0.74], 2) if count == 2 else [rng.choice([0.3, 0.5, 0.7])]
    for share in spots[:count]:
        x = (share + rng.uniform(-0.03, 0.03)) * LARGE
        y = base + rng.uniform(0.02, 0.06) * LARGE
        name = rng.choice(OBJECTS.get(land.ground, USUAL_OBJECTS))
        if name not in names:
            names.append(_put(land, name, x, y, rng.uniform(0.28, 0.34) * LARGE))
    names.sort(key=lambda _name: rng.random())
    return names


def _place_words(land: Landscape) -> str:
    rng = land.rng
    return {
        "sea": rng.choice(["the sea", "the ocean", "the sea"]),
        "hills": rng.choice(["green hills", "hills", "the hills"]),
        "mountains": rng.choice(["mountains", "the mountains"]),
        "snowy mountains": "snowy mountains",
        "desert": rng.choice(["the desert", "a desert"]),
        "field": rng.choice(["a field", "a meadow", "the grass"]),
        "snow": rng.choice(["the snow", "a snowy field"]),
        "city": rng.choice(["a city", "the city", "a city skyline"]),
    }[land.ground]


def _sky_words(land: Landscape) -> str:
    rng = land.rng
    words = {
        "sun": rng.choice(["the sun", "a yellow sun", "the sun"]),
        "moon": rng.choice(["the moon", "a crescent moon"]),
        "full moon": "a full moon",
        "stars": rng.choice(["stars", "a starry sky", "many stars"]),
        "clouds": rng.choice(["clouds", "white clouds"]),
        "rainbow": "a rainbow",
        "": "",
    }[land.sky]
    if land.time == "sunset" and land.sky == "sun":
        words = rng.choice(["a sunset", "the setting sun", "a sunset"])
    return words


def _time_words(land: Landscape) -> str:
    rng = land.rng
    daylight = " on a sunny day" if land.sky == "sun" else " in daylight"
    return {
        "day": rng.choice(["", "", " during the day", daylight]),
        "night": rng.choice([" at night", " at night", ", night"]),
        "sunset": rng.choice([" at sunset", " at sunset", " at dusk"]),
    }[land.time]


def _preposition(land: Landscape) -> str:
    rng = land.rng
    return {
        "sea": "on",
        "field": rng.choice(["in", "on"]),
        "hills": "on",
        "city": "in",
        "mountains": rng.choice(["near", "in front of"]),
        "snowy mountains": rng.choice(["near", "in front of"]),
    }.get(land.ground, "in")


def _caption(land: Landscape, names: list[str]) -> str:
    rng = land.rng
    place, light, when = _place_words(land), _sky_words(land), _time_words(land)
    if light == "a sunset":
        when = ""
    if names:
        text = " and ".join(map(with_article, names)) + f" {_preposition(land)} {place}{when}"
        return text + rng.choice([" with ", " under ", " and "]) + light if light else text
    if light:
        return f"{light} {rng.choice(['over', 'over', 'above'])} {place}{when}"
    return place + when


def scene(rng: random.Random, page: Page) -> tuple[str, Truth]:
    """A landscape by day, by night or at sunset, with up to two objects."""
    land = begin(rng, page)
    names = _objects(land, paint_ground(land))
    return _caption(land, names), Truth("other")
