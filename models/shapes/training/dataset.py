"""The data set: captioned pictures without end, from one random generator.

python -m training.dataset COUNT [--seed 11]     prints captions; a sheet with --sheet FILE

Hold-out: combinations of shape, colour and background whose hash falls below a limit (one in
twelve) are left out of training and used to judge with. `sample` draws everything, `training`
leaves those pictures out. The shipped weights are older than this rule: they were trained on
the 24,000 pictures that `sample` gives with `random.Random(11)`, which hold such combinations.
"""

import argparse
import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from training.captions import decorate
from training.page import SIDE, Page
from training.pictures import face, flower, many_shapes, one_shape, two_shapes
from training.scenes import scene
from training.truth import Combination, Truth

EXPERIMENT_SEED = 11
EXPERIMENT_PICTURES = 24_000
HELD_OUT_ONE_IN = 12

_KINDS: list[Callable[[random.Random, Page], tuple[str, Truth]]] = [
    one_shape,
    two_shapes,
    many_shapes,
    scene,
    flower,
    face,
]
_WEIGHTS = [30, 22, 8, 32, 4, 4]


class Sample(NamedTuple):
    """A picture, its caption, and what is in it."""

    picture: Image.Image
    caption: str
    truth: Truth


def sample(rng: random.Random, new_page: Callable[..., Page] = Page, *, ink: bool = True) -> Sample:
    """The generator's next picture. Without ink only caption and truth are of use."""
    page = new_page(ink=ink)
    caption, truth = rng.choices(_KINDS, _WEIGHTS)[0](rng, page)
    picture = page.picture()
    return Sample(picture, decorate(rng, caption), truth)


def held_out(combination: Combination) -> bool:
    """Whether the combination is kept out of training, for judging."""
    digest = hashlib.sha256("|".join(combination).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def training(
    rng: random.Random, new_page: Callable[..., Page] = Page, *, ink: bool = True
) -> Sample:
    """The generator's next picture without a held-out combination."""
    while True:
        state = rng.getstate()
        # Drawing costs far more than choosing, so a picture to be dropped is not drawn.
        if any(map(held_out, sample(rng, ink=False).truth.combinations())):
            continue
        rng.setstate(state)
        return sample(rng, new_page, ink=ink)


def experiment() -> Iterator[Sample]:
    """Captions and truths, without pictures, of all that the shipped weights were trained on."""
    rng = random.Random(EXPERIMENT_SEED)
    return (sample(rng, ink=False) for _ in range(EXPERIMENT_PICTURES))


def sheet(samples: list[Sample], columns: int = 8) -> Image.Image:
    """The samples' pictures side by side."""
    rows = -(-len(samples) // columns)
    image = Image.new("RGB", (columns * (SIDE + 2), rows * (SIDE + 2)), "white")
    for index, item in enumerate(samples):
        at = (index % columns * (SIDE + 2), index // columns * (SIDE + 2))
        image.paste(item.picture, at)
    return image


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Prints captions of the data set.")
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=EXPERIMENT_SEED)
    parser.add_argument("--sheet", type=Path, help="writes the pictures too, side by side")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    samples = [sample(rng, ink=options.sheet is not None) for _ in range(options.count)]
    print("\n".join(item.caption for item in samples))
    if options.sheet:
        sheet(samples).save(options.sheet)


if __name__ == "__main__":
    main()
