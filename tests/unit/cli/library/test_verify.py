"""``sdq verify`` and ``sdq generate --from``: a file as the beginning of what is drawn."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq.cli.comparing import compare
from sdq.metadata import Provenance, png_bytes
from sdq.protocol.messages import Generate
from sdq.spec import ImageSpec, key_of
from sdq.testing.transport import FINGERPRINT, drawn


def shifted(by: int, pixels: int = 1) -> Any:
    """Draws as before, but for some pixels."""

    def paint(spec: ImageSpec) -> bytes:
        key = key_of(spec, FINGERPRINT)
        red, green, blue = bytes.fromhex(key[:6])
        image = Image.new("RGB", (spec.width, spec.height), (red, green, blue))
        other = (red, green + by if green + by < 256 else green - by, blue)
        for number in range(pixels):
            image.putpixel((number, 0), other)
        return png_bytes(image, Provenance(spec, key, FINGERPRINT, "f" * 10, "cuda:0", {}))

    return paint


def test_identical(shop: Any, ask: Any) -> None:
    Path("out.png").write_bytes(drawn(shop.specs[0]))
    assert ask("verify", "out.png")[:2] == (0, "out.png: identical\n")
    asked = shop.heard[-1]
    assert isinstance(asked, Generate)
    assert asked.cache == "off"
    assert (asked.draft.seed, asked.draft.width, asked.draft.scheduler) == (0, 64, "ddim")


@pytest.mark.parametrize(("by", "code", "verdict"), [(2, 0, "rounding"), (3, 1, "different")])
def test_others(shop: Any, ask: Any, by: int, code: int, verdict: str) -> None:
    Path("out.png").write_bytes(drawn(shop.specs[0]))
    shop.paint = shifted(by, pixels=3)
    found = ask("verify", "out.png")
    assert found[0] == code
    assert f"3 of 4096 pixels differ, by {by} of 255 at most" in found[1]
    assert "drawn on cpu then, on cuda:0 now" in found[2]
    said = json.loads(ask("verify", "out.png", "--json")[1])
    assert (said["verdict"], said["max_difference"], said["pixels_different"]) == (verdict, by, 3)


def test_other_model_files_are_said_before_anything_is_drawn(shop: Any, ask: Any) -> None:
    Path("out.png").write_bytes(drawn(shop.specs[0]))
    shop.fingerprint = "0" * 64
    code, out, err = ask("verify", "out.png")
    assert (code, out) == (1, "")
    assert "the files of the model shapes are not those that drew it" in err
    assert not [message for message in shop.heard if isinstance(message, Generate)]


def test_what_is_not_ours(shop: Any, ask: Any) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    code, _, err = ask("verify", "plain.png")
    assert code == 2
    assert "does not say how sdq drew it" in err


def test_other_sizes_are_different() -> None:
    found = compare(Image.new("RGB", (2, 2)), Image.new("RGB", (2, 3)))
    assert (found.verdict, found.pixels_different) == ("different", 4)


def test_an_order_begins_with_a_file(shop: Any, ask: Any) -> None:
    Path("out.png").write_bytes(drawn(shop.specs[1]))
    code, _, err = ask("generate", "--from", "out.png", "-o", "same.png")
    assert code == 0, err
    assert Path("same.png").read_bytes() == Path("out.png").read_bytes()
    changes = ("--steps", "9", "--lora", "neon:0.5", "-o", "x.png")
    code, _, err = ask("generate", "a star", "--from", "out.png", *changes)
    assert code == 0, err
    draft = shop.heard[-1].draft
    assert (draft.prompt, draft.num_inference_steps, draft.seed) == ("a star", 9, 1)
    assert [(lora.name, lora.weight) for lora in draft.loras] == [("neon", 0.5)]
    assert ask("generate", "--from", "out.png", "--new", "-o", "new.png")[0] == 0
    assert shop.heard[-1].draft.seed != 1


def test_an_order_needs_a_prompt_or_a_file(shop: Any, ask: Any) -> None:
    code, _, err = ask("generate")
    assert code == 2
    assert "PROMPT" in err
    code, _, err = ask("generate", "--from", "missing.png")
    assert code == 2
    assert "cannot read missing.png" in err
