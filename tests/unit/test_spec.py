"""The spec: one form, one key, one derived seed, fixed for good by golden values."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdq.spec import (
    KEY_VERSION,
    SEED_LIMIT,
    ImageSpec,
    Lora,
    LoraChoice,
    SpecDraft,
    canonical,
    derived_seed,
    key_of,
    normalize_text,
    seed_at,
)

DOC = Path(__file__).parents[2] / "docs" / "protocol.md"
FINGERPRINT = "0123456789abcdef" * 4

PLAIN = ImageSpec("a red circle on a blue background", "", "shapes", 64, 64, 20, 5.0, "ddim", 0)
ODD = ImageSpec(
    'Käse, 日本\n"x"', "blurry \\ ugly", "sd-1.5", 512, 768, 30, 7.5, "euler_ancestral", 2**32 - 1
)
WITH_LORAS = msgspec.structs.replace(
    PLAIN, loras=(Lora("neon", "0a" * 32, 0.8), Lora("ink", "f0" * 32, -1.0))
)

GOLDEN = [
    (
        PLAIN,
        '{"guidance_scale":5.0,"height":64,"model":"shapes","negative_prompt":"",'
        '"num_inference_steps":20,"prompt":"a red circle on a blue background",'
        '"scheduler":"ddim","seed":0,"width":64}',
        "6f2572d0baa40f80a9a2cdb5c81d5a2d92cec5013ae3eff2e884d1731ead76c9",
        [1439981861, 3737472840, 305724510],
    ),
    (
        ODD,
        '{"guidance_scale":7.5,"height":768,"model":"sd-1.5","negative_prompt":"blurry \\\\ ugly",'
        '"num_inference_steps":30,"prompt":"Käse, 日本\\n\\"x\\"","scheduler":"euler_ancestral",'
        '"seed":4294967295,"width":512}',
        "7835ac4649167eb904aff201f1fe4558bc659f79f20516efe09e045cfc15acde",
        [1281231240, 4088929652, 3488354374],
    ),
    (
        WITH_LORAS,
        f'{{"guidance_scale":5.0,"height":64,"loras":[["{"0a" * 32}",0.8],["{"f0" * 32}",-1.0]],'
        '"model":"shapes","negative_prompt":"","num_inference_steps":20,'
        '"prompt":"a red circle on a blue background","scheduler":"ddim","seed":0,"width":64}',
        "60138ebcf771a1e9f2efc2475c26f3b61599acc4fba92d488b6b172a586ca1f0",
        [1444590039, 2715637799, 2161241664],
    ),
]


@pytest.mark.parametrize(("spec", "text", "key", "seeds"), GOLDEN)
def test_golden_values(spec: ImageSpec, text: str, key: str, seeds: list[int]) -> None:
    """A change here makes every library forget its pictures: raise KEY_VERSION instead."""
    assert canonical(spec).decode() == text
    assert key_of(spec, FINGERPRINT) == key
    assert [derived_seed(spec, index) for index in range(3)] == seeds
    assert KEY_VERSION == 1


@pytest.mark.parametrize(("spec", "text", "key", "seeds"), GOLDEN)
def test_the_document_tells_the_golden_values(
    spec: ImageSpec, text: str, key: str, seeds: list[int]
) -> None:
    document = DOC.read_text("utf-8")
    assert text in document
    assert key in document
    assert FINGERPRINT in document
    assert ", ".join(map(str, seeds)) in document


@pytest.mark.parametrize(
    "change",
    [{"prompt": "x"}, {"negative_prompt": "x"}, {"model": "x"}, {"width": 72}, {"height": 72},
     {"num_inference_steps": 21}, {"guidance_scale": 5.0000001}, {"scheduler": "euler"},
     {"seed": 1}, {"loras": WITH_LORAS.loras}],
)  # fmt: skip
def test_every_field_changes_the_key(change: dict[str, object]) -> None:
    assert set(re.findall(r'"(\w+)":', GOLDEN[2][1])) == set(ImageSpec.__struct_fields__)
    assert set(re.findall(r'"(\w+)":', GOLDEN[0][1])) == {*ImageSpec.__struct_fields__} - {"loras"}
    other = msgspec.structs.replace(PLAIN, **change)
    assert key_of(other, FINGERPRINT) != key_of(PLAIN, FINGERPRINT)
    same_seed = derived_seed(other, 0) == derived_seed(PLAIN, 0)
    assert same_seed is (change == {"seed": 1})


def test_of_a_lora_file_and_weight_count_and_neither_name_nor_order() -> None:
    first, second = WITH_LORAS.loras

    def key(*loras: Lora) -> str:
        return key_of(msgspec.structs.replace(PLAIN, loras=loras), FINGERPRINT)

    same = key(first, second)
    assert key(second, msgspec.structs.replace(first, name="other")) == same
    assert key(msgspec.structs.replace(first, weight=0.81), second) != same
    assert key(msgspec.structs.replace(first, sha256="0b" * 32), second) != same
    whole = msgspec.structs.replace(second, weight=-1)  # an int, as msgpack may bring it
    assert key(first, whole) == same
    assert key(first) != key(second)


def test_a_spec_without_loras_travels_as_it_did_before_there_were_any() -> None:
    assert "loras" not in msgspec.to_builtins(PLAIN)
    assert msgspec.convert(msgspec.to_builtins(WITH_LORAS), ImageSpec) == WITH_LORAS


def test_other_weights_give_another_key_and_the_same_seed() -> None:
    assert key_of(PLAIN, "a" * 64) != key_of(PLAIN, "b" * 64)


def test_numbers_have_one_form() -> None:
    whole = msgspec.structs.replace(PLAIN, guidance_scale=5)
    assert canonical(whole) == canonical(PLAIN)
    zeros = [msgspec.structs.replace(PLAIN, guidance_scale=zero) for zero in (0.0, -0.0, 0)]
    assert len({canonical(spec) for spec in zeros}) == 1


def test_no_number_is_no_number() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(msgspec.structs.replace(PLAIN, guidance_scale=float("nan")))


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert "\r" not in once


def test_texts_that_look_alike_are_alike() -> None:
    assert normalize_text(" a\r\nb\rc\n") == "a\nb\nc"
    assert normalize_text("Ka\u0308se") == normalize_text("K\u00e4se") == "K\u00e4se"
    assert normalize_text("a  b") == "a  b"
    assert normalize_text("A") != normalize_text("a")


def test_the_index_changes_the_derived_seed() -> None:
    seeds = [derived_seed(PLAIN, index) for index in range(200)]
    assert len(set(seeds)) == 200
    assert all(0 <= seed < SEED_LIMIT for seed in seeds)
    assert derived_seed(msgspec.structs.replace(PLAIN, seed=99), 0) == seeds[0]


def test_a_chosen_seed_counts_up_and_wraps() -> None:
    assert [seed_at(PLAIN, 7, index) for index in range(3)] == [7, 8, 9]
    assert [seed_at(PLAIN, SEED_LIMIT - 1, index) for index in range(3)] == [SEED_LIMIT - 1, 0, 1]
    assert seed_at(PLAIN, None, 1) == derived_seed(PLAIN, 1)
    assert seed_at(PLAIN, 0, 0) == 0


def test_what_a_draft_may_leave_out() -> None:
    assert msgspec.json.decode(b'{"prompt":"x"}', type=SpecDraft) == SpecDraft("x")
    with pytest.raises(msgspec.ValidationError, match="prompt"):
        msgspec.json.decode(b"{}", type=SpecDraft)
    chosen = msgspec.json.decode(b'{"prompt":"x","loras":[{"name":"y"}]}', type=SpecDraft)
    assert chosen.loras == (LoraChoice("y", None),)
    with pytest.raises(msgspec.ValidationError, match="lora"):
        msgspec.json.decode(b'{"prompt":"x","lora":"y"}', type=SpecDraft)
