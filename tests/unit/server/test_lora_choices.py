"""LoRAs that a draft names: found, fit for the model, in one order; or refused in words."""

import math
from pathlib import Path
from typing import Any

import pytest

from sdq.errors import InvalidSpec, UnknownLora
from sdq.server.catalog import Catalog
from sdq.spec import ImageSpec, Lora, LoraChoice, SpecDraft, key_of

LORAS = """
[loras.glow]
title = "Neon light"
license = "MIT"
models = ["shapes", "sd15"]
weight = 0.8
file = {{path = "glow.safetensors", size_bytes = 9, sha256 = "{f}", links = ["https://a.org/n"]}}

[loras.ink]
title = "Ink"
license = "MIT"
models = ["shapes"]
file = {{path = "ink.safetensors", size_bytes = 9, sha256 = "{a}", links = ["https://a.org/i"]}}

[loras.ink-again]
title = "Ink, from elsewhere"
license = "MIT"
models = ["shapes"]
file = {{path = "x.safetensors", size_bytes = 9, sha256 = "{a}", links = ["https://b.org/i"]}}

[loras.orphan]
title = "Of a model that is gone"
license = "MIT"
models = ["gone"]
file = {{path = "o.safetensors", size_bytes = 9, sha256 = "{b}", links = ["https://a.org/o"]}}
""".format(a="a" * 64, b="b" * 64, f="f" * 64)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    file: Path = tmp_path_factory.mktemp("server") / "catalog.toml"
    file.write_text(LORAS)
    return Catalog.load(file)


def draft(*loras: LoraChoice, **fields: Any) -> SpecDraft:
    return SpecDraft(prompt="a red circle", loras=loras, **fields)


def choice(name: str, weight: float | None = None) -> LoraChoice:
    return LoraChoice(name, weight)


def test_those_named_are_sorted_by_file_and_have_their_usual_weight(catalog: Catalog) -> None:
    expected = (Lora("ink", "a" * 64, 1.0), Lora("glow", "f" * 64, 0.8))
    assert catalog.resolve(draft(choice("glow"), choice("ink"))).loras == expected
    assert catalog.resolve(draft(choice("ink"), choice("glow", 0.8))).loras == expected


def test_a_weight_that_is_said_wins_and_zero_leaves_it_out(catalog: Catalog) -> None:
    assert catalog.resolve(draft(choice("glow", -2))).loras == (Lora("glow", "f" * 64, -2.0),)
    plain = catalog.resolve(draft())
    for zero in (0, 0.0, -0.0):
        assert catalog.resolve(draft(choice("glow", zero))) == plain


def test_pictures_without_a_lora_keep_the_key_that_they_had_before_there_were_any(
    catalog: Catalog,
) -> None:
    spec = catalog.resolve(draft(model="shapes", seed=7))
    assert spec == ImageSpec("a red circle", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)
    key = "3a1b65a5adcb12d487001f3301be0af68763f390d13b0003f02f948613bdee75"
    assert key_of(spec, "f" * 64) == key


def test_an_unknown_one_is_answered_with_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UnknownLora, match="did you mean 'glow'") as refused:
        catalog.resolve(draft(choice("glov")))
    assert "sdq model loras" in refused.value.hint
    with pytest.raises(UnknownLora, match=r"'zzzz'$"):
        catalog.lora("zzzz")
    with pytest.raises(UnknownLora) as empty:
        Catalog({"shapes": catalog.manifest("shapes")}, "shapes", 100).lora("glow")
    assert "add-lora" in empty.value.hint


REFUSED = [
    ((choice("glow"),), "sdxl", "'glow' is for shapes, sd15, not for sdxl", "--model sdxl"),
    ((choice("orphan"),), "shapes", "'orphan' is for gone, not for shapes", "--model shapes"),
    ((choice("ink"), choice("ink", 2)), "shapes", "'ink' is there twice", "once"),
    ((choice("ink"), choice("ink-again")), "shapes", "are the same file", "one of them"),
    ((choice("glow", 10.5),), "shapes", "weight 10.5 of LoRA 'glow'", "usual one is 0.8"),
    ((choice("glow", math.nan),), "shapes", "weight nan", "usual"),
    ((choice("glow", -math.inf),), "shapes", "weight -inf", "usual"),
    ((choice("glow"),) * 9, "shapes", "9 LoRAs in one picture: at most 8", ""),
]


@pytest.mark.parametrize(("loras", "model", "words", "hint"), REFUSED)
def test_what_cannot_be_drawn_is_refused_with_what_is_right(
    catalog: Catalog, loras: tuple[LoraChoice, ...], model: str, words: str, hint: str
) -> None:
    with pytest.raises(InvalidSpec, match=words) as refused:
        catalog.resolve(draft(*loras, model=model))
    assert hint in refused.value.hint


def test_the_lists_of_the_catalog(catalog: Catalog) -> None:
    ids = [lora.lora_id for lora in catalog.loras()]
    assert ids == sorted(ids)
    assert {"ink", "ink-again", "glow", "orphan"} <= set(ids)
    assert [lora.lora_id for lora in catalog.loras("sd15")] == ["glow"]
    assert catalog.lora("glow").models == ("shapes", "sd15")
    assert catalog.loras("sdxl") == ()


def test_files_are_found_by_hash_with_the_links_of_all_that_name_them(catalog: Catalog) -> None:
    ink, glow = catalog.lora_files(["a" * 64, "0" * 64, "f" * 64])
    assert ink.links == ("https://a.org/i", "https://b.org/i")
    assert (glow.path, glow.size_bytes, glow.sha256) == ("glow.safetensors", 9, "f" * 64)
