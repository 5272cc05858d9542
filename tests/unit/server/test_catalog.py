"""The catalog: shipped models, an operator's own, and what a draft means."""

import hashlib
import math
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdq.errors import InvalidSpec, UnknownModel, UsageError
from sdq.protocol.model import ModelManifest
from sdq.server.catalog import Catalog
from sdq.spec import SEED_LIMIT, ImageSpec, SpecDraft, key_of

WEIGHTS = Path(__file__).parents[3] / "models" / "shapes" / "sdq_shapes" / "weights"

OWN = """
default = "mine"

[models.mine]
title = "My own"
kind = "folder"
license = "mine"
canary_prompt = "a cat"
defaults = {width = 64, height = 64, num_inference_steps = 5, guidance_scale = 1, scheduler = "lcm"}
[models.mine.limits]
min_side = 64
max_side = 128
max_pixels = 8192
max_steps = 10
schedulers = ["lcm", "euler"]
[[models.mine.files]]
path = "unet/model.safetensors"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
links = ["https://example.org/model.safetensors"]
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.toml"
    path.write_text(OWN)
    return path


def draft(**fields: Any) -> SpecDraft:
    return SpecDraft(**{"prompt": "a red circle", **fields})


# ---------------------------------------------------------------- models


def test_the_shipped_models_are_complete(catalog: Catalog):
    assert catalog.default_model_id == "shapes"
    ids = [manifest.model_id for manifest in catalog.manifests()]
    assert ids == ["dreamshaper-xl", "sd15", "sdxl", "sdxl-turbo", "shapes"]
    assert len({manifest.fingerprint for manifest in catalog.manifests()}) == len(ids)
    for manifest in catalog.manifests():
        travelled = msgspec.to_builtins(manifest)
        assert msgspec.convert(travelled, ModelManifest) == manifest
        assert catalog.manifest(manifest.model_id) is manifest
        assert all(file.links for file in manifest.files)
        assert catalog.resolve(draft(model=manifest.model_id)).model == manifest.model_id
    assert catalog.manifest(None).model_id == "shapes"


def test_a_link_with_a_known_commit_is_pinned_to_it(catalog: Catalog):
    (file,) = catalog.manifest("sdxl-turbo").files
    assert all("71153311d3dbb46851df1931d3ca6e939de83304" in link for link in file.links)
    assert "non-commercial" in catalog.manifest("sdxl-turbo").license.lower()
    assert catalog.manifest("sd15").files[0].size_bytes is None


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the weights of shapes are not in this checkout")
def test_shapes_is_what_its_package_holds(catalog: Catalog):
    files = {file.path: file for file in catalog.manifest("shapes").files}
    found = {path for path in WEIGHTS.rglob("*") if path.is_file()}
    assert files.keys() == {path.relative_to(WEIGHTS).as_posix() for path in found}
    for name, file in files.items():
        data = (WEIGHTS / name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.links == (f"builtin:shapes/{name}",)


def test_an_unknown_model_is_answered_with_the_nearest_and_the_list(catalog: Catalog):
    with pytest.raises(UnknownModel, match="did you mean 'sdxl-turbo'") as caught:
        catalog.resolve(draft(model="SDXL_turbo"))
    assert "dreamshaper-xl, sd15, sdxl, sdxl-turbo, shapes" in caught.value.hint
    with pytest.raises(UnknownModel, match=r"'zzzz'$"):
        catalog.manifest("zzzz")
    with pytest.raises(UnknownModel):
        catalog.manifest("x" * 1_000_000)
    with pytest.raises(UnknownModel):
        catalog.resolve(draft(model=""))


# ---------------------------------------------------------------- the operator's file


def test_a_file_that_is_not_there_adds_nothing(tmp_path: Path, catalog: Catalog):
    assert Catalog.load(tmp_path / "none.toml").manifests() == catalog.manifests()


def test_an_operator_adds_a_model_and_makes_it_the_default(own: Path, catalog: Catalog):
    loaded = Catalog.load(own)
    assert loaded.default_model_id == "mine"
    assert len(loaded.manifests()) == len(catalog.manifests()) + 1
    spec = loaded.resolve(draft())
    assert spec == ImageSpec("a red circle", "", "mine", 64, 64, 5, 1.0, "lcm", 0)


def test_an_operator_replaces_a_model_as_a_whole(own: Path, catalog: Catalog):
    own.write_text(OWN.replace("mine", "shapes"))
    replaced = Catalog.load(own).manifest("shapes")
    assert replaced.title == "My own"
    assert replaced.fingerprint != catalog.manifest("shapes").fingerprint


def test_an_operator_may_only_choose_a_default(own: Path):
    own.write_text('default = "sdxl"')
    assert Catalog.load(own).default_model_id == "sdxl"
    own.write_text('default = "gone"')
    with pytest.raises(UsageError, match="default = 'gone'"):
        Catalog.load(own)


MISTAKES = [
    ("width = 64,", 'width = "64",', r"model 'mine': defaults\.width: expected `int`, got `str`"),
    ("width = 64,", "", r"model 'mine': defaults: .*`width`"),
    ("width = 64,", "width = 60,", "model 'mine': defaults: width 60"),
    ("height = 64,", "height = 256,", "model 'mine': defaults: height 256 is outside"),
    ("width = 64, height = 64,", "width = 128, height = 128,", "more pixels"),
    ('scheduler = "lcm"}', 'scheduler = "ddim"}', "no scheduler 'ddim'"),
    ("num_inference_steps = 5", "num_inference_steps = 50", "50 steps"),
    ('title = "My own"', "", "model 'mine': .*`title`"),
    ('title = "My own"', 'titel = "My own"', "model 'mine': .*titel"),
    ('kind = "folder"', 'kind = "zip"', r"model 'mine': kind: invalid enum value 'zip'"),
    ('license = "mine"', 'license = ""', "model 'mine': license: "),
    ('canary_prompt = "a cat"', 'canary_prompt = "  "', "canary_prompt is empty"),
    ('sha256 = "0', 'sha256 = "X', r"model 'mine': files\[0\]\.sha256: "),
    ("unet/model", "../model", r"model 'mine': files\[0\]\.path: "),
    ("unet/model", "unet/../../model", r"files\[0\]\.path: not of the form"),
    ("unet/model", "unet//model", r"files\[0\]\.path: not of the form"),
    ("https://example.org/", "example.org/", "has no scheme"),
    ('["https://example.org/model.safetensors"]', "[]", "has no links"),
    ("[models.mine]", '[models."Mine!"]', "the id of a model"),
    ('default = "mine"', 'defualt = "mine"', "defualt"),
    ("max_side = 128", "max_side = ", "Invalid value"),
]


@pytest.mark.parametrize(("right", "wrong", "words"), MISTAKES)
def test_a_mistake_is_told_with_file_model_and_field(own: Path, right: str, wrong: str, words: str):
    assert right in OWN
    text = OWN.replace(right, wrong)
    own.write_text(text.replace("models.mine", 'models."Mine!"') if "Mine!" in wrong else text)
    with pytest.raises(UsageError, match=words) as caught:
        Catalog.load(own)
    assert str(own) in caught.value.message


OWN_LORA = """
[loras.glow]
title = "Neon light"
license = "MIT"
models = ["mine", "shapes"]
weight = 0.8
trigger = " glow light "
[loras.glow.file]
path = "glow.safetensors"
size_bytes = 1000
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
links = ["https://example.org/glow.safetensors"]
"""


def test_an_operator_adds_a_lora(own: Path):
    own.write_text(OWN + OWN_LORA)
    loaded = Catalog.load(own)
    lora = loaded.lora("glow")
    assert (lora.models, lora.weight, lora.trigger) == (("mine", "shapes"), 0.8, "glow light")
    assert (lora.file.size_bytes, lora.file.sha256) == (1000, "1" * 64)
    assert loaded.own_loras == {"glow"}
    own.write_text(OWN)
    version = loaded.version
    loaded.reload()
    assert "glow" not in [lora.lora_id for lora in loaded.loras()]
    assert loaded.lora_files(["1" * 64]) == ()
    assert loaded.version > version


LORA_MISTAKES = [
    ('title = "Neon light"', "", "LoRA 'glow': .*`title`"),
    ('license = "MIT"', 'license = ""', "LoRA 'glow': license: "),
    ('["mine", "shapes"]', "[]", "LoRA 'glow': models: "),
    ('["mine", "shapes"]', '["mine", "mine"]', "LoRA 'glow': models: one is there twice"),
    ('["mine", "shapes"]', '["a/b"]', r"LoRA 'glow': models\[0\]: "),
    ("weight = 0.8", "weight = 11", "LoRA 'glow': weight: "),
    ("weight = 0.8", "weight = nan", "LoRA 'glow': weight: "),
    ("weight = 0.8", "wait = 0.8", "LoRA 'glow': .*wait"),
    ("size_bytes = 1000", "", "LoRA 'glow': file: .*`size_bytes`"),
    (
        "size_bytes = 1000",
        "size_bytes = 5000000000",
        r"file\.size_bytes: expected `int` <= 4294967296",
    ),
    ("size_bytes = 1000", "size_bytes = 0", r"LoRA 'glow': file\.size_bytes: "),
    ('sha256 = "1', 'sha256 = "X', r"LoRA 'glow': file\.sha256: "),
    ("glow.safetensors", "glow.ckpt", r"file\.path: 'glow\.ckpt' is no \.safetensors file"),
    ('"glow.safetensors"', '"../glow.safetensors"', r"LoRA 'glow': file\.path: not of the form"),
    ("https://example.org/", "example.org/", "LoRA 'glow': file: link .* has no scheme"),
    ('["https://example.org/glow.safetensors"]', "[]", "LoRA 'glow': file: .* has no links"),
    ("loras.glow", 'loras."Neon!"', "LoRA 'Neon!': the id of a LoRA"),
]


@pytest.mark.parametrize(("right", "wrong", "words"), LORA_MISTAKES)
def test_a_mistake_in_a_lora_is_told_with_its_place(own: Path, right: str, wrong: str, words: str):
    assert right in OWN_LORA
    own.write_text(OWN + OWN_LORA.replace(right, wrong))
    with pytest.raises(UsageError, match=words) as caught:
        Catalog.load(own)
    assert str(own) in caught.value.message


def test_a_file_listed_twice_is_refused(own: Path):
    files = OWN[OWN.index("[[models.mine.files]]") :]
    own.write_text(OWN + files)
    with pytest.raises(UsageError, match="is there twice"):
        Catalog.load(own)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, own: Path):
    with pytest.raises(UsageError, match="cannot read"):
        Catalog.load(tmp_path)
    own.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read"):
        Catalog.load(own)
    own.write_bytes(b"#" * 5_000_000)
    with pytest.raises(UsageError, match="over 4194304 bytes"):
        Catalog.load(own)


# ---------------------------------------------------------------- drafts


def test_a_silent_draft_gets_the_defaults_of_its_model(catalog: Catalog):
    assert catalog.resolve(draft()) == ImageSpec(
        "a red circle", "", "shapes", 128, 128, 20, 4.0, "ddim", 0
    )
    turbo = catalog.resolve(draft(model="sdxl-turbo"))
    assert (turbo.num_inference_steps, turbo.guidance_scale) == (1, 0.0)


def test_what_a_draft_says_wins_also_when_it_is_zero(catalog: Catalog):
    spec = catalog.resolve(
        draft(
            negative_prompt=" blur ",
            width=64,
            height=256,
            num_inference_steps=1,
            guidance_scale=0,
            scheduler="euler",
            seed=SEED_LIMIT - 1,
        )
    )
    assert spec == ImageSpec(
        "a red circle", "blur", "shapes", 64, 256, 1, 0.0, "euler", SEED_LIMIT - 1
    )
    assert type(spec.guidance_scale) is float


def test_drafts_that_look_alike_have_one_key(catalog: Catalog):
    alike = [
        draft(prompt="  a café\r\nby night ", guidance_scale=0.0),
        draft(prompt="a cafe\u0301\nby night", guidance_scale=-0.0),
        draft(prompt="a café\rby night", guidance_scale=0, width=128, model="shapes"),
    ]
    keys = {key_of(catalog.resolve(one), "f" * 64) for one in alike}
    assert len(keys) == 1


WRONG = [
    ({"prompt": ""}, "the prompt is empty", "say in words"),
    ({"prompt": " \n\t"}, "the prompt is empty", "say in words"),
    ({"prompt": "x" * 2_001}, "the prompt has 2001 characters.*at most 2000", "shorten"),
    ({"negative_prompt": "x" * 2_002}, "the negative prompt has 2002 characters", "shorten"),
    ({"width": 100}, "width 100 is not a multiple of 8", "nearest are 96 and 104"),
    ({"height": 255}, "height 255 is not a multiple of 8", "nearest are 248 and 256"),
    ({"width": 56}, "width 56 is outside", "64 to 256"),
    ({"height": 264}, "height 264 is outside", "64 to 256"),
    ({"width": 0}, "width 0 is outside", "64 to 256"),
    ({"width": -8}, "width -8 is outside", "64 to 256"),
    ({"num_inference_steps": 101}, "101 steps.*1 to 100", "default is 20"),
    ({"num_inference_steps": 0}, "0 steps", "default is 20"),
    ({"scheduler": "eulr"}, "did you mean 'euler'", "ddim, pndm, euler"),
    ({"scheduler": "Euler_Ancestral"}, "did you mean 'euler_ancestral'", "known are"),
    ({"guidance_scale": 101.0}, "guidance 101", "4"),
    ({"guidance_scale": -1.0}, "guidance -1", "4"),
    ({"guidance_scale": math.nan}, "guidance nan", "4"),
    ({"guidance_scale": math.inf}, "guidance inf", "4"),
    ({"seed": SEED_LIMIT}, "seed 4294967296", ""),
    ({"seed": -1}, "seed -1", ""),
]


@pytest.mark.parametrize(("fields", "words", "hint"), WRONG)
def test_a_wrong_draft_is_told_what_is_right(
    catalog: Catalog, fields: dict[str, Any], words: str, hint: str
):
    with pytest.raises(InvalidSpec, match=words) as caught:
        catalog.resolve(draft(**fields))
    assert hint in caught.value.hint


def test_sides_are_fine_and_their_product_is_not(catalog: Catalog):
    with pytest.raises(InvalidSpec, match=r"1024x1024 has more pixels.*1048576, at most 786432"):
        catalog.resolve(draft(model="sd15", width=1024, height=1024))
    assert catalog.resolve(draft(model="sd15", width=1024, height=768)).width == 1024


def test_near_a_limit_only_sizes_within_it_are_named(own: Path):
    own.write_text(OWN.replace("max_side = 128", "max_side = 100"))
    with pytest.raises(InvalidSpec) as caught:
        Catalog.load(own).resolve(draft(width=99))
    assert caught.value.hint == "the nearest is 96"


def test_the_limit_of_prompts_is_a_setting_below_the_ceiling():
    short = Catalog.load(max_prompt_characters=10)
    assert short.resolve(draft(prompt="x" * 10)).prompt == "x" * 10
    assert short.resolve(draft(prompt=" " * 50 + "x")).prompt == "x"
    with pytest.raises(InvalidSpec, match="11 characters; this server takes at most 10"):
        short.resolve(draft(prompt="x" * 11))
    assert Catalog.load(max_prompt_characters=100_000).max_prompt_characters == 4_000


@given(
    st.builds(
        SpecDraft,
        prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        negative_prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        model=st.none() | st.sampled_from(["shapes", "sdxl", "sd15", "none"]),
        width=st.none() | st.integers(0, 600),
        height=st.none() | st.integers(0, 600).map(lambda side: side * 8),
        num_inference_steps=st.none() | st.integers(-1, 200),
        guidance_scale=st.none() | st.floats(),
        scheduler=st.none() | st.sampled_from(["ddim", "euler", "", "x"]),
        seed=st.none() | st.integers(-1, SEED_LIMIT),
    )
)
def test_any_draft_is_refused_in_words_or_gives_a_spec_that_travels(draft: SpecDraft):
    catalog = _LOADED
    try:
        spec = catalog.resolve(draft)
    except (InvalidSpec, UnknownModel):
        return
    assert msgspec.convert(msgspec.to_builtins(spec), ImageSpec) == spec
    assert unicodedata.is_normalized("NFC", spec.prompt)
    assert spec.prompt == spec.prompt.strip() != ""
    again = SpecDraft(**msgspec.structs.asdict(spec))
    assert catalog.resolve(again) == spec


_LOADED = Catalog.load()
