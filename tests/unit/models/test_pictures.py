"""The data set: the same pictures from the same generator, and pixels as the caption says."""

import hashlib
import random

import pytest
from evaluation.prompts import check, choose, load
from PIL import Image
from training.dataset import experiment, held_out, sample, training
from training.page import LARGE, Page
from training.palette import COLOURS
from training.shapes import SHAPES, Spot, draw_shape


def painted(shape: str, colour: str = "red", background: str = "blue") -> Image.Image:
    """One large shape in the middle."""
    page = Page()
    behind = COLOURS[background]
    spot = Spot(LARGE / 2, LARGE / 2, 0.35 * LARGE)
    draw_shape(page.start(behind), shape, spot, COLOURS[colour], behind)
    return page.picture()


def test_same_generator_same_pictures() -> None:
    first, second = random.Random(1), random.Random(1)
    for _ in range(60):
        one, two = sample(first), sample(second)
        assert one.caption == two.caption
        assert one.truth == two.truth
        assert one.picture.tobytes() == two.picture.tobytes()


def test_captions_without_ink_are_those_with_ink() -> None:
    with_ink, without = random.Random(2), random.Random(2)
    for _ in range(100):
        assert sample(with_ink).caption == sample(without, ink=False).caption
    assert with_ink.getstate() == without.getstate()


def test_the_experiment_can_be_drawn_again() -> None:
    """Pixels and captions of the shipped weights' training set have not moved."""
    rng = random.Random(11)
    pixels = hashlib.sha256(b"".join(sample(rng).picture.tobytes() for _ in range(400)))
    assert pixels.hexdigest() == "ba80686ef836b5cefa566d4a4b5461eae2aecf6d437b7f92c39e8cbaf8eba2f5"
    captions = "\n".join(item.caption for item in experiment())
    assert (
        hashlib.sha256(captions.encode()).hexdigest()
        == "5dda8b51bd89be6255ce0dbb3c57ccb59a843e917a37b59246e8c217ef4a79d1"
    )


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("ring", "crescent", "ball")])
def test_a_shape_is_coloured_in_the_middle_and_not_in_the_corner(shape: str) -> None:
    picture = painted(shape)
    assert picture.getpixel((64, 64)) == COLOURS["red"]
    assert picture.getpixel((2, 2)) == COLOURS["blue"]


def test_a_ring_has_a_hole_and_a_crescent_opens_to_the_upper_right() -> None:
    assert painted("ring").getpixel((64, 64)) == COLOURS["blue"]
    assert painted("ring").getpixel((64 - 35, 64)) == COLOURS["red"]
    assert painted("crescent").getpixel((64 + 20, 64 - 15)) == COLOURS["blue"]
    assert painted("crescent").getpixel((64 - 35, 64)) == COLOURS["red"]


def test_a_ball_is_lit_from_the_upper_left() -> None:
    light, dark = (sum(painted("ball").getpixel(at)) for at in ((50, 50), (90, 90)))  # type: ignore[arg-type]
    assert light > dark + 100


def test_the_size_and_mode_of_every_picture() -> None:
    rng = random.Random(4)
    for _ in range(30):
        picture = sample(rng).picture
        assert (picture.size, picture.mode) == ((128, 128), "RGB")


def test_no_training_picture_holds_a_held_out_combination() -> None:
    rng, free = random.Random(5), random.Random(5)
    drawn = [training(rng) for _ in range(200)]
    assert not any(held_out(c) for item in drawn for c in item.truth.combinations())
    unfiltered = [sample(free, ink=False) for _ in range(200)]
    assert any(held_out(c) for item in unfiltered for c in item.truth.combinations())


def test_the_prompts_keep_their_rules() -> None:
    prompts = load()
    found = check(prompts)
    assert found.problems == []
    assert [prompt.text for prompt in prompts] == [prompt.text for prompt in choose()]
