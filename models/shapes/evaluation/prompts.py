"""The 100 prompts that the model is judged with, in `prompts.json` beside this file.

python -m evaluation.prompts            checks them against the rules and the training captions
python -m evaluation.prompts --choose   chooses them anew (and gives the same again)

All their combinations of shape, colour and background are held out of training (see
`training.dataset`), and no prompt is, to the letter, one of the 24,000 captions that the
shipped weights were trained on. Those weights are older than the hold-out: how many of their
training pictures did hold one of these combinations is counted and printed.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.captions import NUMBERS, PLACES, plural, with_article
from training.dataset import experiment, held_out
from training.palette import COLOURS
from training.shapes import SHAPES
from training.truth import Combination, Thing, Truth

FILE = Path(__file__).with_name("prompts.json")
SEED = 2026
KINDS = {"one": 40, "place": 20, "two": 24, "many": 16}
RELATIONS = {
    "and": "and",
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "inside": "inside",
}
OUTER = ("circle", "square", "hexagon", "diamond")


@dataclass(frozen=True)
class Prompt:
    """What is asked in words, under which kind it is counted, and what must be seen."""

    kind: str
    text: str
    truth: Truth


def combinations() -> list[Combination]:
    """All held-out combinations of shape, colour and another colour as background."""
    return [
        (shape, colour, background)
        for shape in SHAPES
        for colour in COLOURS
        for background in COLOURS
        if colour != background and held_out((shape, colour, background))
    ]


def compose(kind: str, truth: Truth) -> Prompt:
    """The prompt in the plainest words of the captions' grammar."""
    end = f"on {with_article(truth.background)} background"
    names = [f"{thing.colour} {thing.shape}" for thing in truth.things]
    if kind == "many":
        thing = truth.things[0]
        text = f"{NUMBERS[len(truth.things)]} {thing.colour} {plural(thing.shape)} {end}"
    elif kind == "two":
        first, second = map(with_article, names)
        text = f"{first} {RELATIONS[truth.relation]} {second} {end}"
    else:
        text = " ".join(part for part in (with_article(names[0]), truth.place, end) if part)
    return Prompt(kind, text, truth)


def _draft(rng: random.Random, kind: str, index: int) -> Prompt:
    """A prompt of the kind; relations, places and numbers take turns."""
    shape, colour, background = rng.choice(combinations())
    first = Thing(shape, colour)
    if kind == "many":
        truth = Truth("many", background, (first,) * (2 + index % 3))
    elif kind == "two":
        relation = list(RELATIONS)[index % len(RELATIONS)]
        others = [
            Thing(other_shape, other_colour)
            for other_shape, other_colour, other_ground in combinations()
            if other_ground == background
            and other_colour != colour
            and (relation != "inside" or other_shape in OUTER)
        ]
        # A background whose held-out combinations hold no fitting second thing: once more.
        if not others:
            return _draft(rng, kind, index)
        truth = Truth("two", background, (first, rng.choice(others)), relation=relation)
    else:
        place = list(PLACES)[index % len(PLACES)] if kind == "place" else ""
        truth = Truth("one", background, (first,), place=place)
    return compose(kind, truth)


def choose() -> list[Prompt]:
    """The prompts, chosen by a fixed seed, without any that is a training caption."""
    used = {item.caption for item in experiment()}
    rng = random.Random(SEED)
    chosen: list[Prompt] = []
    for kind, count in KINDS.items():
        for index in range(count):
            prompt = _draft(rng, kind, index)
            while prompt.text in used:
                prompt = _draft(rng, kind, index)
            used.add(prompt.text)
            chosen.append(prompt)
    return chosen


def _read(entry: dict[str, Any]) -> Prompt:
    fields = dict(entry["truth"])
    fields["things"] = tuple(Thing(**thing) for thing in fields["things"])
    return Prompt(entry["kind"], entry["text"], Truth(**fields))


def load() -> list[Prompt]:
    """The prompts as they stand in the file."""
    return [_read(entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class Check:
    """What was found about the prompts; `problems` is empty when the rules hold."""

    problems: list[str]
    trained_pictures: int
    trained_prompts: int


def check(prompts: list[Prompt]) -> Check:
    """Holds the prompts against the rules and against the experiment's training captions."""
    wanted = {combination for prompt in prompts for combination in prompt.truth.combinations()}
    captions: set[str] = set()
    seen: set[Combination] = set()
    pictures = 0
    for item in experiment():
        captions.add(item.caption)
        shown = item.truth.combinations() & wanted
        seen |= shown
        pictures += bool(shown)
    return Check(
        problems=list(_problems(prompts, captions)),
        trained_pictures=pictures,
        trained_prompts=sum(bool(prompt.truth.combinations() & seen) for prompt in prompts),
    )


def _problems(prompts: list[Prompt], captions: set[str]) -> Iterator[str]:
    if len({prompt.text for prompt in prompts}) != sum(KINDS.values()):
        yield "the prompts are not 100 different ones"
    for prompt in prompts:
        if prompt.text in captions:
            yield f"a training caption: {prompt.text}"
        if not all(map(held_out, prompt.truth.combinations())):
            yield f"not held out: {prompt.text}"


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Checks or chooses the prompts.")
    parser.add_argument("--choose", action="store_true", help="choose and write them anew")
    if parser.parse_args().choose:
        entries = [asdict(prompt) for prompt in choose()]
        FILE.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    found = check(load())
    print("\n".join(found.problems) or "no prompt is a training caption, all are held out")
    print(
        f"training pictures of the shipped weights with a combination asked for: "
        f"{found.trained_pictures}"
    )
    print(f"prompts that ask for a combination among those: {found.trained_prompts} of 100")
    raise SystemExit(bool(found.problems))


if __name__ == "__main__":
    main()
