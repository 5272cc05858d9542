"""Changing a catalog file: what was asked for changes, and what people wrote stays."""

import msgspec
import pytest

from sdq.protocol.model import LoraManifest, ModelFile
from sdq.server.catalog import Catalog
from sdq.server.catalog_edit import (
    with_default,
    with_lora,
    with_model,
    without_lora,
    without_model,
)
from sdq.server.catalog_file import parse

WRITTEN_BY_HAND = """\
# our own models, ask Ada before you change them
default = "shapes"

[models.mine]   # the good one
title = "My own"
kind = "folder"
license = "mine"
canary_prompt = "a cat"
defaults = {width = 64, height = 64, num_inference_steps = 5, guidance_scale = 1, scheduler = "lcm"}
limits = {min_side = 64, max_side = 128, max_pixels = 8192, max_steps = 10, schedulers = ["lcm"]}
[[models.mine.files]]
path = "unet/model.safetensors"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
links = ["https://example.org/model.safetensors"]
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


@pytest.mark.parametrize("model_id", ["shapes", "sd15", "sdxl-turbo"])
@pytest.mark.parametrize("text", ["", WRITTEN_BY_HAND], ids=["a new file", "a file of people"])
def test_a_model_comes_back_as_it_was_put_in(catalog: Catalog, model_id: str, text: str) -> None:
    manifest = catalog.manifest(model_id)
    changed = with_model(text, manifest)
    assert parse(changed, "here").manifests[model_id] == manifest


def test_all_fields_come_back(catalog: Catalog) -> None:
    manifest = msgspec.structs.replace(
        catalog.manifest("sd15"),
        title='a "quoted" ünïcode \\ title',
        memory_bytes=4_000_000_000,
        is_distilled=True,
        golden="aGVsbG8=",
        kind="archive",
    )
    assert parse(with_model("", manifest), "here").manifests["sd15"] == manifest


def test_what_people_wrote_stays(catalog: Catalog) -> None:
    changed = with_model(WRITTEN_BY_HAND, catalog.manifest("sd15"))
    assert changed.startswith(WRITTEN_BY_HAND.rstrip("\n"))
    assert without_model(changed, "sd15").strip() == WRITTEN_BY_HAND.strip()


def test_an_entry_is_replaced_in_its_place(catalog: Catalog) -> None:
    mine = parse(WRITTEN_BY_HAND, "here").manifests["mine"]
    changed = with_model(WRITTEN_BY_HAND, msgspec.structs.replace(mine, title="Better"))
    assert parse(changed, "here").manifests["mine"].title == "Better"
    assert changed.count("[models.mine]") == 1
    assert changed.startswith("# our own models, ask Ada")


def test_the_default_goes_with_its_model() -> None:
    text = with_default(WRITTEN_BY_HAND, "mine")
    assert parse(text, "here").default == "mine"
    assert text.startswith("# our own models, ask Ada")
    assert parse(without_model(text, "mine"), "here").default is None
    with pytest.raises(KeyError):
        without_model(text, "nothing")


def test_a_default_in_a_file_without_one(catalog: Catalog) -> None:
    text = with_model("", catalog.manifest("sd15"))
    chosen = parse(with_default(text, "sd15"), "here")
    assert (chosen.default, list(chosen.manifests)) == ("sd15", ["sd15"])
    assert parse(with_default("", "sdxl"), "here").default == "sdxl"


def test_ids_with_dots_are_one_name(catalog: Catalog) -> None:
    manifest = msgspec.structs.replace(catalog.manifest("sd15"), model_id="sd-1.5.v2")
    text = with_model(WRITTEN_BY_HAND, manifest)
    assert set(parse(text, "here").manifests) == {"mine", "sd-1.5.v2"}
    assert set(parse(without_model(text, "sd-1.5.v2"), "here").manifests) == {"mine"}


LORA = LoraManifest(
    lora_id="neon-1.5",
    title='a "quoted" title',
    license="MIT",
    models=("shapes", "sd15"),
    file=ModelFile("neon.safetensors", 9, "a" * 64, ("https://a.org/n", "file:///n")),
    weight=0.8,
    trigger="neon",
)


@pytest.mark.parametrize("text", ["", WRITTEN_BY_HAND], ids=["a new file", "a file of people"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_lora_comes_back_as_it_was_put_in(text: str, plain: bool) -> None:
    lora = msgspec.structs.replace(LORA, weight=1.0, trigger="") if plain else LORA
    changed = with_lora(text, lora)
    assert parse(changed, "here").loras == {"neon-1.5": lora}
    assert parse(changed, "here").manifests == parse(text, "here").manifests


def test_a_lora_is_replaced_and_removed_and_what_people_wrote_stays(catalog: Catalog) -> None:
    changed = with_lora(WRITTEN_BY_HAND, LORA)
    assert changed.startswith(WRITTEN_BY_HAND.rstrip("\n"))
    other = msgspec.structs.replace(LORA, lora_id="ink")
    both = with_model(with_lora(changed, other), catalog.manifest("sd15"))
    better = with_lora(both, msgspec.structs.replace(LORA, title="Better"))
    assert parse(better, "here").loras["neon-1.5"].title == "Better"
    assert set(parse(without_lora(better, "neon-1.5"), "here").loras) == {"ink"}
    assert set(parse(better, "here").manifests) == {"mine", "sd15"}
    assert without_lora(changed, "neon-1.5").strip() == WRITTEN_BY_HAND.strip()
    with pytest.raises(KeyError):
        without_lora(changed, "nothing")
