"""Pictures of one, two or many shapes, flowers and faces, each with caption and truth.

The order of the random choices is part of the recipe: `random.Random(11)` must give the
pictures that the shipped weights were trained on, so every choice is made even where its
result goes unused.
"""

import random
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from training.captions import NUMBERS, PLACES, plural, say, with_article
from training.page import LARGE, Page
from training.palette import COLOURS, Colour, vary
from training.shapes import SHAPES, Spot, draw_shape, polygon
from training.truth import Thing, Truth

# The share of LARGE by which a shape may be off its place, each way.
OFF = 0.02
PAIR_SPOTS = {
    "and": ((0.27, 0.5), (0.73, 0.5)),
    "left": ((0.27, 0.5), (0.73, 0.5)),
    "right": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
}
GROUP_SPOTS = {
    2: ((0.28, 0.5), (0.72, 0.5)),
    3: ((0.5, 0.27), (0.27, 0.7), (0.73, 0.7)),
    4: ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
}
INK: Colour = (30, 26, 24)


class Background(NamedTuple):
    """The colour's name, how the caption says it (or nothing), and the colour as painted."""

    name: str
    phrase: str
    colour: Colour


def choose_background(rng: random.Random, avoid: AbstractSet[str]) -> Background:
    """A background in none of the colours to avoid; white (or black) where unsaid."""
    name = rng.choice([colour for colour in COLOURS if colour not in avoid])
    word = say(rng, name)
    usual = f" on {with_article(word)} background"
    phrase = rng.choice([usual] * 4 + [f" on {word}", f", {word} background"])
    if rng.random() < 0.12:
        name, phrase = ("white" if "white" not in avoid else "black"), ""
    return Background(name, phrase, vary(rng, COLOURS[name], 6))


def near(rng: random.Random, x: float, y: float, off: float = OFF) -> tuple[float, float]:
    """A point near (x, y), given as shares of the side, in drawing coordinates."""
    return (x + rng.uniform(-off, off)) * LARGE, (y + rng.uniform(-off, off)) * LARGE


def _size(rng: random.Random, size: str, place: str) -> float:
    """The radius, as a share of the side, for a size word; smaller where a place is named."""
    radius = {
        "small": rng.uniform(0.10, 0.14),
        "large": rng.uniform(0.34, 0.40),
        "": rng.uniform(0.22, 0.27),
    }[size]
    if place and place != "in the center":
        radius = min(radius, rng.uniform(0.16, 0.19))
    return radius


def one_shape(rng: random.Random, page: Page) -> tuple[str, Truth]:
    """One shape, in the middle or at a named place."""
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    background = choose_background(rng, {colour})
    draw = page.start(background.colour)
    size = rng.choice(["small", "large", "", "", "", ""])
    place = rng.choice(list(PLACES)) if rng.random() < 0.35 else ""
    radius = _size(rng, size, place)
    spot = Spot(*near(rng, *PLACES.get(place, (0.5, 0.5))), radius * LARGE)
    draw_shape(draw, shape, spot, vary(rng, COLOURS[colour]), background.colour)
    words = {"large": rng.choice(["large", "big"]), "small": rng.choice(["small", "tiny"]), "": ""}
    text = f"{words[size]} {say(rng, colour)} {say(rng, shape)}".strip()
    text = rng.choice([with_article(text)] * 5 + [text, "one " + text])
    truth = Truth("one", background.name, (Thing(shape, colour),), place=place)
    return f"{text} {place}".strip() + background.phrase, truth


def two_shapes(rng: random.Random, page: Page) -> tuple[str, Truth]:
    """Two shapes in two colours, side by side, one above the other, or one inside the other."""
    shapes = rng.choice(SHAPES), rng.choice(SHAPES)
    colours = rng.sample(list(COLOURS), 2)
    first, second = (Thing(s, c) for s, c in zip(shapes, colours, strict=True))
    background = choose_background(rng, set(colours))
    relation = rng.choice(["and", "and", "left", "right", "above", "below", "inside"])
    names = [_name(rng, first), _name(rng, second)]
    if relation == "inside":
        second = Thing(rng.choice(["circle", "square", "hexagon", "diamond"]), second.colour)
        names[1] = _name(rng, second)
        _draw_inside(rng, page, first, second, background)
        word = "inside"
    else:
        _draw_pair(rng, page, (first, second), relation, background)
        word = _relation_word(rng, relation)
    truth = Truth("two", background.name, (first, second), relation=relation)
    return f"{names[0]} {word} {names[1]}{background.phrase}", truth


def _name(rng: random.Random, thing: Thing) -> str:
    return with_article(f"{say(rng, thing.colour)} {say(rng, thing.shape)}")


def _relation_word(rng: random.Random, relation: str) -> str:
    return {
        "and": "and",
        "left": rng.choice(["to the left of", "left of", "next to"]),
        "right": rng.choice(["to the right of", "right of"]),
        "above": rng.choice(["above", "over", "on top of"]),
        "below": rng.choice(["below", "under"]),
    }[relation]


def _draw_inside(
    rng: random.Random, page: Page, inner: Thing, outer: Thing, background: Background
) -> None:
    draw = page.start(background.colour)
    behind = vary(rng, COLOURS[outer.colour])
    spot = Spot(*near(rng, 0.5, 0.5), rng.uniform(0.36, 0.40) * LARGE)
    draw_shape(draw, outer.shape, spot, behind, background.colour)
    spot = Spot(*near(rng, 0.5, 0.5), rng.uniform(0.14, 0.17) * LARGE)
    draw_shape(draw, inner.shape, spot, vary(rng, COLOURS[inner.colour]), behind)


def _draw_pair(
    rng: random.Random,
    page: Page,
    things: tuple[Thing, Thing],
    relation: str,
    background: Background,
) -> None:
    draw = page.start(background.colour)
    radius = rng.uniform(0.17, 0.20) * LARGE
    for thing, (x, y) in zip(things, PAIR_SPOTS[relation], strict=True):
        spot = Spot(*near(rng, x, y), radius)
        colour = vary(rng, COLOURS[thing.colour])
        draw_shape(draw, thing.shape, spot, colour, background.colour)


def many_shapes(rng: random.Random, page: Page) -> tuple[str, Truth]:
    """Two, three or four of the same shape in the same colour."""
    count, shape, colour = rng.choice([2, 3, 4]), rng.choice(SHAPES), rng.choice(list(COLOURS))
    background = choose_background(rng, {colour})
    draw = page.start(background.colour)
    for x, y in GROUP_SPOTS[count]:
        spot = Spot(*near(rng, x, y), rng.uniform(0.15, 0.18) * LARGE)
        draw_shape(draw, shape, spot, vary(rng, COLOURS[colour]), background.colour)
    word = plural(say(rng, shape))
    truth = Truth("many", background.name, (Thing(shape, colour),) * count)
    return f"{NUMBERS[count]} {say(rng, colour)} {word}{background.phrase}", truth


def flower(rng: random.Random, page: Page) -> tuple[str, Truth]:
    """A flower with six petals, a stem and two leaves."""
    dull = ("green", "black", "brown", "gray")
    name = rng.choice([colour for colour in COLOURS if colour not in dull])
    background = choose_background(rng, {name, "green"})
    draw = page.start(background.colour)
    x, y = near(rng, 0.5, 0.38, 0.03)
    q = rng.uniform(0.11, 0.13) * LARGE
    s = LARGE
    draw.rectangle((x - 0.016 * s, y, x + 0.016 * s, 0.92 * s), fill=(50, 140, 60))
    draw.ellipse((x + 0.01 * s, 0.66 * s, x + 0.17 * s, 0.74 * s), fill=(60, 156, 70))
    draw.ellipse((x - 0.17 * s, 0.72 * s, x - 0.01 * s, 0.8 * s), fill=(60, 156, 70))
    colour = vary(rng, COLOURS[name])
    for petal in polygon(Spot(x, y, 1.25 * q), 6):
        draw.ellipse(Spot(*petal, 0.78 * q).box(), fill=colour)
    middle = (120, 70, 40) if name in ("yellow", "orange") else (250, 200, 50)
    draw.ellipse(Spot(x, y, 0.7 * q).box(), fill=middle)
    return with_article(f"{say(rng, name)} flower") + background.phrase, Truth("other")


def face(rng: random.Random, page: Page) -> tuple[str, Truth]:
    """A round face that smiles or frowns, yellow more often than not."""
    name, mood = rng.choice(["yellow"] * 4 + list(COLOURS)), rng.choice(["happy", "sad"])
    name = "yellow" if name == "black" else name
    background = choose_background(rng, {name})
    draw = page.start(background.colour)
    x, y = near(rng, 0.5, 0.5)
    q = rng.uniform(0.3, 0.36) * LARGE
    draw.ellipse(Spot(x, y, q).box(), fill=vary(rng, COLOURS[name]))
    for side in (-1, 1):
        left, right = x + (side * 0.36 - 0.11) * q, x + (side * 0.36 + 0.11) * q
        draw.ellipse((left, y - 0.42 * q, right, y - 0.12 * q), fill=INK)
    width = int(0.1 * q)
    if mood == "happy":
        mouth = (x - 0.55 * q, y - 0.45 * q, x + 0.55 * q, y + 0.58 * q)
        draw.arc(mouth, 20, 160, fill=INK, width=width)
    else:
        mouth = (x - 0.5 * q, y + 0.22 * q, x + 0.5 * q, y + 1.1 * q)
        draw.arc(mouth, 205, 335, fill=INK, width=width)
    word = say(rng, name)
    happy = rng.choice([f"happy {word} face", f"smiling {word} face", f"{word} smiley face"])
    text = happy if mood == "happy" else f"sad {word} face"
    return with_article(text) + background.phrase, Truth("other")
