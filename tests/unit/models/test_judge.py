"""The judge: right about pictures that are right, and about those that are not."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from evaluate import mistakes, summary, table
from evaluation.judge import judge
from evaluation.outlines import outline, overlaps
from evaluation.prompts import load
from PIL import Image, ImageFilter
from training.captions import PLACES
from training.dataset import Sample, sample
from training.page import LARGE, Page
from training.palette import COLOURS
from training.shapes import SHAPES, Spot, draw_shape
from training.truth import Thing, Truth


def painted(*spots: tuple[float, float], truth: Truth, radius: float = 0.17) -> Image.Image:
    """The truth's things at those places."""
    page = Page()
    behind = COLOURS[truth.background]
    draw = page.start(behind)
    for thing, (x, y) in zip(truth.things, spots, strict=True):
        spot = Spot(x * LARGE, y * LARGE, radius * LARGE)
        draw_shape(draw, thing.shape, spot, COLOURS[thing.colour], behind)
    return page.picture()


@pytest.fixture(scope="module")
def drawn() -> list[Sample]:
    """Pictures of the generator that show shapes."""
    rng = random.Random(21)
    samples = (sample(rng) for _ in range(320))
    return [item for item in samples if item.truth.kind != "other"]


def test_drawn_pictures_are_right(drawn: list[Sample]) -> None:
    asked: Counter[str] = Counter(item.truth.kind for item in drawn)
    right: Counter[str] = Counter()
    for item in drawn:
        right[item.truth.kind] += judge(item.picture, item.truth).everything
    assert set(asked) == {"one", "two", "many"}
    for kind, count in asked.items():
        assert right[kind] >= 0.96 * count, (kind, right[kind], count)


def test_blurred_pictures_keep_background_colour_and_count(drawn: list[Sample]) -> None:
    """The model's edges are soft: that alone must not count as a mistake."""
    kept = 0
    chosen = drawn[:60]
    for item in chosen:
        verdict = judge(item.picture.filter(ImageFilter.GaussianBlur(1.5)), item.truth)
        kept += verdict.background and verdict.colour and verdict.count
    assert kept >= 0.95 * len(chosen)


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_shape(shape: str) -> None:
    truth = Truth("one", "white", (Thing(shape, "red"),))
    picture = painted((0.5, 0.5), truth=truth, radius=0.25)
    assert judge(picture, truth).everything
    for other in SHAPES:
        if other != shape:
            verdict = judge(picture, replace(truth, things=(Thing(other, "red"),)))
            assert (verdict.shape, verdict.colour, verdict.count) == (False, True, True)


@pytest.mark.parametrize("colour", COLOURS)
def test_wrong_colours(colour: str) -> None:
    background = "white" if colour != "white" else "black"
    truth = Truth("one", background, (Thing("square", colour),))
    picture = painted((0.5, 0.5), truth=truth, radius=0.25)
    assert judge(picture, truth).everything
    for other in COLOURS:
        if other != colour:
            asked = replace(truth, things=(Thing("square", other),))
            assert not judge(picture, asked).colour
        if other != background:
            assert not judge(picture, replace(truth, background=other)).background


def test_wrong_count() -> None:
    spots = [(0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)]
    for count in (1, 2, 3, 4):
        truth = Truth("many", "yellow", (Thing("heart", "blue"),) * count)
        picture = painted(*spots[:count], truth=truth)
        for asked in (1, 2, 3, 4):
            verdict = judge(picture, replace(truth, things=truth.things[:1] * asked))
            assert verdict.count == (asked == count)


@pytest.mark.parametrize("place", PLACES)
def test_places(place: str) -> None:
    truth = Truth("one", "pink", (Thing("star", "black"),), place=place)
    picture = painted(PLACES[place], truth=truth)
    for other in PLACES:
        assert judge(picture, replace(truth, place=other)).place == (other == place)
    assert judge(picture, replace(truth, place="")).place is None


def test_relations() -> None:
    things = (Thing("circle", "red"), Thing("square", "blue"))
    truth = Truth("two", "white", things, relation="left")
    picture = painted((0.27, 0.5), (0.73, 0.5), truth=truth)
    wanted = {"left": True, "right": False, "above": False, "below": False, "and": None}
    for relation, place in wanted.items():
        assert judge(picture, replace(truth, relation=relation)).place is place
    swapped = judge(picture, replace(truth, things=things[::-1]))
    assert swapped.place is False
    assert swapped.colour
    assert not judge(picture, replace(truth, relation="inside")).everything


def test_colours_on_the_wrong_things() -> None:
    """The colours are both there, each on the other shape: then the shapes are wrong."""
    asked = Truth("two", "white", (Thing("circle", "red"), Thing("star", "blue")), relation="and")
    crossed = replace(asked, things=(Thing("circle", "blue"), Thing("star", "red")))
    picture = painted((0.27, 0.5), (0.73, 0.5), truth=crossed)
    assert judge(picture, crossed).everything
    assert not judge(picture, asked).shape


def test_an_empty_picture_shows_nothing() -> None:
    truth = Truth("one", "white", (Thing("circle", "red"),), place="on the left")
    verdict = judge(Image.new("RGB", (128, 128), COLOURS["white"]), truth)
    assert verdict.background
    assert not any((verdict.colour, verdict.count, verdict.place, verdict.shape))


def test_noise_is_not_right() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    truth = Truth("one", "gray", (Thing("circle", "red"),))
    assert not judge(Image.fromarray(pixels), truth).everything


def test_an_outline_fits_itself_best() -> None:
    for shape in SHAPES:
        scores = overlaps(outline(shape))
        best = max(scores, key=lambda name: scores[name])
        assert best == ("circle" if shape == "ball" else shape)
        assert scores[best] > 0.97


def test_the_table_counts_by_kind() -> None:
    prompts = load()
    truth = Truth("one", "white", (Thing("circle", "red"),))
    right = judge(painted((0.5, 0.5), truth=truth), truth)
    wrong = judge(painted((0.5, 0.5), truth=truth), replace(truth, background="blue"))
    rows = summary(prompts, [wrong] + [right] * 99)
    assert rows["one"]["background"] == [39, 40]
    assert rows["total"]["everything"] == [99, 100]
    assert "99 of 100" in table(rows)
    assert mistakes(prompts, [wrong] + [right] * 99) == [f"  0 background: {prompts[0].text}"]
