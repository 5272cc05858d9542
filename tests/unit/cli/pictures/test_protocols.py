"""iTerm2, sixel and half blocks: what was sent is read back."""

import io

import pytest
from PIL import Image, ImageChops

from sdq.cli.pictures import iterm2, sixel
from sdq.cli.pictures.blocks import has_blocks, in_blocks
from sdq.cli.pictures.screen import Screen, cells_of, fitting
from sdq.testing.pictures_sent import iterm2_pictures, sixel_pictures


def test_iterm2(image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    (sent,) = iterm2_pictures(iterm2.at_cursor(buffer.getvalue(), 12, 6).encode())
    assert sent.keys["inline"] == "1"
    assert (sent.keys["width"], sent.keys["height"]) == ("12", "6")
    assert ImageChops.difference(sent.image, image).getbbox() is None


@pytest.mark.parametrize("size", [(40, 40), (1, 1), (7, 13), (64, 6)])
def test_sixel(image: Image.Image, size: tuple[int, int]) -> None:
    wanted = image.resize(size, Image.Resampling.NEAREST)
    (sent,) = sixel_pictures(sixel.at_cursor(wanted).encode())
    assert sent.image.size == size
    worst = max(high for _, high in ImageChops.difference(sent.image, wanted).getextrema())
    assert worst <= 3  # colours are told in percent


def test_sixel_of_many_colours_is_near() -> None:
    wanted = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)])
    (sent,) = sixel_pictures(sixel.at_cursor(wanted.resize((60, 60))).encode())
    blurred = [picture.resize((6, 6), Image.Resampling.BOX) for picture in (sent.image, wanted)]
    worst = max(high for _, high in ImageChops.difference(*blurred).getextrema())
    assert worst < 16


@pytest.mark.parametrize(
    ("size", "columns", "lines", "pixels"),
    [
        ((64, 64), 80, 16, (32, 32)),
        ((64, 64), 20, 16, (20, 20)),
        ((128, 64), 80, 16, (64, 32)),
        ((64, 128), 80, 16, (16, 32)),
        ((4, 4), 80, 16, (32, 32)),
        ((1000, 1), 40, 16, (40, 2)),
        ((1, 1000), 40, 16, (1, 32)),
        ((3, 3), 5, 16, (5, 4)),
    ],
)
def test_as_large_as_it_can_be(
    size: tuple[int, int], columns: int, lines: int, pixels: tuple[int, int]
) -> None:
    assert fitting(size, columns, lines) == pixels


def test_cells_keep_the_shape() -> None:
    screen = Screen(80, 24, 9, 18)
    assert cells_of((512, 512), 40, 40, screen) == (40, 20)
    assert cells_of((512, 256), 40, 40, screen) == (40, 10)
    assert cells_of((512, 512), 40, 10, screen) == (20, 10)
    assert cells_of((1000, 1), 40, 10, screen) == (40, 1)


def test_letters_that_a_stream_cannot_say() -> None:
    assert has_blocks("utf-8")
    assert not has_blocks("ascii")
    assert not has_blocks("no such code")
    assert not has_blocks(None)


def test_blocks_are_as_many_as_there_is_room(image: Image.Image) -> None:
    text = in_blocks(image, 10, 20).plain
    assert [len(line) for line in text.split("\n")] == [10] * 5
