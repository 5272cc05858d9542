"""kitty's protocol, read back as a kitty would."""

import io

import pytest
from PIL import Image, ImageChops
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sdq.cli.pictures.kitty import (
    ACCENTS,
    InCells,
    at_cursor,
    forgetting,
    number_of,
    through_tmux,
)
from sdq.cli.pictures.screen import Screen
from sdq.cli.pictures.show import png_of
from sdq.testing.pictures_sent import PLACEHOLDER, KittyTerminal, kitty_pictures, out_of_tmux


def noise(side: int) -> Image.Image:
    return Image.effect_noise((side, side), 90).convert("RGB")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("side", [1, 16, 200])
def test_a_picture_arrives_whole_in_pieces(side: int) -> None:
    image = noise(side)
    sequence = at_cursor(png(image), 20, 10)
    (sent,) = kitty_pictures(sequence.encode())
    assert (sent.keys["a"], sent.keys["f"]) == ("T", "100")
    assert (sent.keys["c"], sent.keys["r"]) == ("20", "10")
    assert ImageChops.difference(sent.image, image).getbbox() is None
    assert sequence.endswith("\x1b\\\n")


def test_through_tmux_each_piece_has_its_envelope() -> None:
    image = noise(60)
    shown = InCells(png(image), number_of(0, 7), 20, 10, through_tmux).text().encode()
    assert not kitty_pictures(shown.split(PLACEHOLDER.encode())[0].replace(b"\x1b\x1b", b""))
    (sent,) = kitty_pictures(out_of_tmux(shown))
    assert sent.keys["U"] == "1"
    assert ImageChops.difference(sent.image, image).getbbox() is None


def test_the_letters_say_number_line_and_column() -> None:
    number = number_of(3, 999)
    text = InCells(png(noise(4)), number, 5, 3).text()
    letters = text[text.index("\x1b[38;5;") :].splitlines()
    assert len(letters) == 3
    for line, row in enumerate(letters):
        colour, _, rest = row.removeprefix("\x1b[38;5;").partition("m")
        assert rest.startswith(PLACEHOLDER + ACCENTS[line] + ACCENTS[0])
        high = ACCENTS.index(rest[3])
        assert high << 24 | int(colour) == number
        assert rest.count(PLACEHOLDER) == 5
        assert rest.endswith("\x1b[39m")


def test_numbers_are_apart() -> None:
    assert len({number_of(place, 5) for place in range(3)}) == 3
    for seed in (0, 1, 239, 240, 2**24 - 1):
        number = number_of(0, seed)
        assert 16 <= number & 0xFF <= 255  # no colour that Rich or tmux would rename
        assert number >> 24 in range(1, len(ACCENTS))
        assert not number & 0x00FFFF00


def test_within_rich_the_bytes_go_once_and_a_new_picture_takes_the_place() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=40, height=20)
    number = number_of(0, 1)
    first, second = noise(8), noise(8)
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        for image in (first, second):
            shown = Table.grid()
            shown.add_row(InCells(png(image), number, 6, 3), "beside")
            live.update(shown)
            live.refresh()
            live.refresh()
    screen.file.write(forgetting(number))
    said = screen.file.getvalue()
    terminal = KittyTerminal().feed(said.encode())
    assert [sent.keys["i"] for sent in terminal.sent] == [str(number)] * 2
    assert [sent.image.tobytes() for sent in terminal.sent] == [
        image.tobytes() for image in (first, second)
    ]
    assert terminal.deleted == [number]
    rows = [row.partition("\x1b[39m")[0] for row in said.split("\x1b[38;5;")[1:]]
    assert all(row.count(PLACEHOLDER) == 6 for row in rows)
    assert said.count("beside") == len(rows) // 3 >= 4


def test_no_more_pixels_than_the_letters_have() -> None:
    sent = Image.open(io.BytesIO(png_of(noise(400), 10, 5, Screen(80, 24, 10, 20))))
    assert sent.size == (100, 100)
