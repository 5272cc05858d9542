"""What a script may say of a picture."""

import pytest

from sdq.client.drafts import draft_of, lora_of
from sdq.errors import InvalidSpec
from sdq.spec import LoraChoice, SpecDraft


@pytest.mark.parametrize("item", ["x", SpecDraft("x"), {"prompt": "x"}])
def test_the_three_ways_of_saying_the_same(item: object) -> None:
    draft = draft_of(item, {"size": (64, 32), "seed": 3})
    assert draft == SpecDraft("x", width=64, height=32, seed=3)


def test_parameters_go_before_an_item_and_defaults_behind() -> None:
    item = {"prompt": "x", "seed": 2, "width": 64}
    draft = draft_of(item, {"seed": 1}, defaults={"seed": 3, "size": (8, 16), "model": "m"})
    assert draft == SpecDraft("x", seed=1, width=64, height=16, model="m")
    said = SpecDraft("x", seed=2)
    assert draft_of(said, {}, defaults={"seed": 3, "model": "m"}) == SpecDraft("x", "", "m", seed=2)


@pytest.mark.parametrize(
    ("wish", "choice"),
    [
        ("neon", LoraChoice("neon")),
        ("neon:0.8", LoraChoice("neon", 0.8)),
        ("neon:-1", LoraChoice("neon", -1.0)),
        (("neon", 0.8), LoraChoice("neon", 0.8)),
        (LoraChoice("neon"), LoraChoice("neon")),
    ],
)
def test_loras(wish: object, choice: LoraChoice) -> None:
    assert lora_of(wish) == choice
    assert draft_of("x", {"loras": [wish]}).loras == (choice,)


@pytest.mark.parametrize(
    ("item", "parameters", "words"),
    [
        (7, {}, "int is no prompt"),
        ({"seed": 3}, {}, "no prompt"),
        ("x", {"sede": 3}, "no parameter 'sede'"),
        ({"prompt": "x", "steps": 3}, {}, "no parameter 'steps'"),
        ("x", {"size": 64}, "size"),
        ("x", {"loras": ["neon:strong"]}, "no LoRA"),
        ("x", {"loras": [3]}, "no LoRA"),
        ("x", {"loras": "neon"}, "a list"),
    ],
)
def test_what_is_refused_in_words(item: object, parameters: dict, words: str) -> None:
    with pytest.raises(InvalidSpec, match=words) as caught:
        draft_of(item, parameters)
    assert caught.value.hint
