"""A finished picture: its pixels, and the files that it becomes."""

import io
from pathlib import Path

import pytest
from PIL import Image

from sdq import metadata
from sdq.client import Picture
from sdq.errors import OutputError, UsageError
from sdq.protocol.messages import Generate
from sdq.protocol.model import fingerprint_of
from sdq.spec import ImageSpec, SpecDraft
from sdq.testing.transport import pictures_of

SPEC = ImageSpec("a red circle", "", "shapes", 16, 8, 20, 4.0, "ddim", 3)


@pytest.fixture
def picture() -> Picture:
    key = "ab" * 32
    provenance = metadata.Provenance(SPEC, key, fingerprint_of(()), "0" * 10, "cpu", {"sdq": "1"})
    png = metadata.png_bytes(Image.new("RGB", (16, 8), (200, 20, 20)), provenance)
    return Picture(png=png, spec=SPEC, key=key, index=0, origin="made", draw_seconds=0.5)


def test_the_pixels_are_decoded_once(picture: Picture) -> None:
    assert picture.image is picture.image
    assert picture.image.size == (16, 8)
    assert picture.image.getpixel((3, 3)) == (200, 20, 20)
    assert "png" not in repr(picture)
    assert picture._repr_png_() == picture.png


@pytest.mark.parametrize("ending", [".png", ".jpg", ".JPEG", ".webp"])
def test_a_file_says_how_it_was_drawn(picture: Picture, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new folder" / f"out{ending}"
    assert picture.save(str(path)) == path
    told = metadata.read(path.read_bytes())
    assert told is not None
    assert (told.spec, told.key) == (SPEC, picture.key)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.size == (16, 8)
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_nothing(picture: Picture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ends in no format"):
        picture.save(tmp_path / "out.gif")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        picture.save(tmp_path / "file" / "out.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        picture.save(tmp_path / "taken.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.png"]


def test_bytes_that_are_no_picture_are_an_error_in_words() -> None:
    broken = Picture.of(pictures_of(Generate(1, SpecDraft("x")))[0])
    broken = Picture(
        png=broken.png[:20], spec=broken.spec, key=broken.key, index=0,
        origin=broken.origin, draw_seconds=0.0,
    )  # fmt: skip
    with pytest.raises(UsageError, match="not a picture that can be read"):
        _ = broken.image
