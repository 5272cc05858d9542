"""The golden picture: a right one is known again, a wrong one is told with its difference."""

import base64

import msgspec
import pytest
from PIL import Image

from sdq.errors import ModelError
from sdq.protocol.model import Golden
from sdq.server.catalog import Catalog
from sdq.spec import ImageSpec
from sdq.testing.pipeline import picture_of
from sdq.worker import golden


def test_the_same_picture_is_known_again(spec: ImageSpec) -> None:
    assert golden.fault_of(picture_of(spec), golden.encoded(picture_of(spec))) == ""
    assert golden.fault_of(picture_of(spec), "") == ""


def test_a_little_noise_is_no_fault_and_more_is(spec: ImageSpec) -> None:
    kept = golden.encoded(Image.new("RGB", (128, 128), (100, 100, 100)))
    near, far = (Image.new("RGB", (128, 128), (100 + by, 100, 100)) for by in (5, 9))
    assert golden.fault_of(near, kept) == ""
    assert "differ by 3.0 of 255 on average, 2 are allowed" in golden.fault_of(far, kept)


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (128, 96), (48, 64), (1024, 64)])
def test_it_fits_into_an_entry_whatever_it_shows(size: tuple[int, int]) -> None:
    noise = Image.effect_noise(size, 100)
    text = golden.encoded(Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180))))
    assert msgspec.convert(text, Golden) == text
    width, height = golden.decoded(text).size
    assert max(width, height) <= golden.MAX_SIDE
    assert golden.fault_of(noise.convert("RGB"), golden.encoded(noise)) == ""


@pytest.mark.parametrize(
    "text", ["?", "aGVsbG8=", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 50).decode(), "ä"]
)
def test_what_is_no_picture_is_told_in_words(text: str, spec: ImageSpec) -> None:
    with pytest.raises(ModelError, match="golden picture of the catalog is broken") as caught:
        golden.fault_of(picture_of(spec), text)
    assert "--golden" in caught.value.hint


def test_the_built_in_model_has_one() -> None:
    """That it is the right one, an installation of the real model shows."""
    manifest = Catalog.load().manifest("shapes")
    assert golden.decoded(manifest.golden).size == (64, 64)
