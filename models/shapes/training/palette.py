"""The twelve named colours, and how colours are varied and mixed."""

import random
from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 38, 38),
    "orange": (245, 130, 32),
    "yellow": (250, 208, 40),
    "green": (46, 160, 67),
    "blue": (37, 99, 235),
    "purple": (130, 60, 190),
    "pink": (244, 130, 180),
    "brown": (130, 82, 45),
    "black": (22, 22, 26),
    "white": (248, 248, 248),
    "gray": (140, 142, 148),
    "cyan": (60, 200, 220),
}
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


def vary(rng: random.Random, colour: Colour, amount: int = 10) -> Colour:
    """The colour a little lighter or darker, and each channel a little off."""
    shift = rng.randint(-amount, amount)
    red, green, blue = (
        max(0, min(255, value + shift + rng.randint(-amount // 2, amount // 2))) for value in colour
    )
    return red, green, blue


def mix(first: Colour, second: Colour, part: float) -> Colour:
    """A colour on the way from the first (part 0) to the second (part 1)."""
    red, green, blue = (int(a + (b - a) * part) for a, b in zip(first, second, strict=True))
    return red, green, blue
