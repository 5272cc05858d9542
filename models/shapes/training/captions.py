"""The words of the captions: synonyms, places, numbers, and filler that changes no picture."""

import random

SYNONYMS: dict[str, list[str]] = {
    "circle": ["circle", "circle", "disc", "dot"],
    "ball": ["ball", "sphere"],
    "ring": ["ring", "donut"],
    "cross": ["cross", "plus"],
    "square": ["square", "square", "box"],
    "gray": ["gray", "grey"],
    "purple": ["purple", "violet"],
    "cyan": ["cyan", "turquoise"],
}
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLACES: dict[str, tuple[float, float]] = {
    "in the top left corner": (0.25, 0.25),
    "in the top right corner": (0.75, 0.25),
    "in the bottom left corner": (0.25, 0.75),
    "in the bottom right corner": (0.75, 0.75),
    "at the top": (0.5, 0.24),
    "at the bottom": (0.5, 0.76),
    "on the left": (0.24, 0.5),
    "on the right": (0.76, 0.5),
    "in the center": (0.5, 0.5),
}
PREFIXES = [
    "a picture of",
    "a drawing of",
    "an illustration of",
    "a painting of",
    "an image of",
    "a photo of",
    "a simple",
    "a beautiful",
]
SUFFIXES = [
    "highly detailed",
    "digital art",
    "4k",
    "beautiful",
    "minimalist",
    "flat design",
    "simple",
    "masterpiece",
    "best quality",
    "vector art",
    "clean",
    "sharp focus",
    "concept art",
    "watercolor",
    "cartoon",
    "hd",
]
# Made-up words are spelled with letters about as often as English uses them.
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def say(rng: random.Random, word: str) -> str:
    """The word or one of its synonyms."""
    return rng.choice(SYNONYMS[word]) if word in SYNONYMS else word


def with_article(text: str) -> str:
    """The text with "a" or "an" before it."""
    return ("an " if text[0] in "aeiou" else "a ") + text


def plural(word: str) -> str:
    """The plural of a shape's name or of one of its synonyms."""
    return word + ("es" if word in ("cross", "plus", "box") else "s")


def decorate(rng: random.Random, text: str) -> str:
    """Now and then adds words that must not change the picture: styles, filler, nonsense."""
    if rng.random() < 0.15:
        text = f"{rng.choice(PREFIXES)} {text}"
    if rng.random() < 0.15:
        text += "".join(", " + rng.choice(SUFFIXES) for _ in range(rng.randint(1, 3)))
    if rng.random() < 0.06:
        text += ", " + "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 9)))
    return text
