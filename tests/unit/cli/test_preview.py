"""Small pictures on terminals: where they can be shown, and what is drawn there."""

import io
import os
import warnings
from collections.abc import Iterator
from typing import TextIO

import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from sdq.cli.preview import HalfBlocks, KittyCells, decoded, painter_for
from sdq.testing.pictures_sent import KittyTerminal

XTERM = {"TERM": "xterm-256color"}


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        yield stream
    os.close(controller)


def jpeg(width: int = 16, height: int = 16, *, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("environment", "can"),
    [
        (XTERM, True),
        ({"TERM": "xterm"}, True),
        (XTERM | {"NO_COLOR": ""}, True),
        (XTERM | {"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_where_colours_are_shown(terminal: TextIO, environment: dict[str, str], can: bool) -> None:
    painter = painter_for(terminal, environment)
    assert isinstance(painter, HalfBlocks) if can else painter is None


def test_a_kitty_is_painted_in_its_own_way(terminal: TextIO) -> None:
    kitty = {"TERM": "xterm-kitty"}
    assert isinstance(painter_for(terminal, kitty), KittyCells)
    assert isinstance(painter_for(terminal, kitty, "blocks"), HalfBlocks)
    assert isinstance(painter_for(terminal, XTERM, "iterm2"), HalfBlocks)  # nothing to erase it by
    assert painter_for(terminal, kitty, "off") is None


def test_kitty_forgets_what_it_was_shown(terminal: TextIO) -> None:
    painter = KittyCells(terminal, seed=4)
    assert painter.farewell() == ""
    said = io.StringIO()
    screen = Console(file=said, force_terminal=True, width=40)
    for place in (0, 1, 0):
        screen.print(painter.paint(Image.new("RGB", (8, 8)), 10, 5, place))
    said.write(painter.farewell() + painter.farewell())
    heard = KittyTerminal().feed(said.getvalue().encode())
    numbers = [int(sent.keys["i"]) for sent in heard.sent]
    assert numbers[0] == numbers[2] != numbers[1]
    assert heard.deleted == sorted(set(numbers))


def test_no_terminal_and_one_that_has_no_such_letters(terminal: TextIO) -> None:
    assert painter_for(io.StringIO(), XTERM) is None
    with os.fdopen(os.dup(terminal.fileno()), "w", encoding="ascii") as plain:
        assert painter_for(plain, XTERM) is None


def test_two_pixels_a_letter() -> None:
    image = Image.new("RGB", (2, 4))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)] * 2
    for place, colour in enumerate(colours):
        image.putpixel((place % 2, place // 2), colour)
    painted = HalfBlocks().paint(image, columns=2, lines=2)
    assert isinstance(painted, Text)
    assert painted.plain == "▀▀\n▀▀"
    screen = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        width=20,
        legacy_windows=False,
    )
    with screen.capture() as captured:
        screen.print(painted)
    for upper, lower in ((colours[0], colours[2]), (colours[1], colours[3])):
        code = f"38;2;{';'.join(map(str, upper))};48;2;{';'.join(map(str, lower))}"
        assert captured.get().count(code) == 2


def test_a_preview_is_decoded_in_rgb() -> None:
    for mode in ("RGB", "L"):
        image = decoded(jpeg(24, 16, mode=mode))
        assert image is not None
        assert (image.size, image.mode) == ((24, 16), "RGB")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        jpeg()[:-100],
        jpeg(kind="PNG"),
        jpeg(2_000, 8),
        # A head that promises 65500 × 65500 pixels.
        jpeg().replace(b"\x00\x10\x00\x10\x03", b"\xff\xdc\xff\xdc\x03"),
    ],
)
def test_what_is_no_preview_is_not_shown(data: bytes) -> None:
    assert decoded(data) is None


def test_a_huge_one_is_refused_without_a_word() -> None:
    huge = jpeg().replace(b"\x00\x10\x00\x10\x03", b"\x27\x10\x27\x10\x03")  # 10 000 × 10 000
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert decoded(huge) is None
    assert not told  # a terminal would show it in the middle of the picture
