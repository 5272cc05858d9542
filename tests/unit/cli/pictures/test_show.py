"""The one call: a picture on a terminal of any kind."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops
from rich.console import Console

from sdq.cli.pictures.show import decoded, show
from sdq.testing.pictures_sent import (
    PLACEHOLDER,
    block_pixels,
    iterm2_pictures,
    kitty_pictures,
    sixel_pictures,
)

KITTY = {"TERM": "xterm-kitty"}


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=None)
    return buffer.getvalue()


def shown(terminal: Any, image: Any, environment: dict[str, str], **how: Any) -> bytes:
    console = Console(file=terminal.stream)
    assert show(image, console, environment=environment, **how)
    heard: bytes = terminal.heard()
    assert heard.endswith(b"\n")
    return heard


def test_kitty(terminal: Any, image: Image.Image) -> None:
    heard = shown(terminal, png(image), KITTY)
    (sent,) = kitty_pictures(heard)
    assert (sent.keys["c"], sent.keys["r"]) == ("32", "16")  # small ones are enlarged
    assert ImageChops.difference(sent.image, image).getbbox() is None
    assert PLACEHOLDER.encode() not in heard


def test_iterm2(terminal: Any, image: Image.Image) -> None:
    (sent,) = iterm2_pictures(shown(terminal, image, {"TERM": "x", "LC_TERMINAL": "iTerm2"}))
    assert ImageChops.difference(sent.image, image).getbbox() is None


def test_sixel(terminal: Any, image: Image.Image) -> None:
    (sent,) = sixel_pictures(shown(terminal, image, {"TERM": "foot"}, width_columns=20))
    assert sent.image.size == (200, 200)
    near = [sent.image.getpixel(at) for at in ((30, 30), (170, 30), (30, 170), (170, 170))]
    wanted = [image.getpixel(at) for at in ((5, 5), (35, 5), (5, 35), (35, 35))]
    for got, want in zip(near, wanted, strict=True):
        assert isinstance(got, tuple)
        assert isinstance(want, tuple)
        assert all(abs(one - other) < 12 for one, other in zip(got, want, strict=True))


def test_half_blocks(terminal: Any, image: Image.Image) -> None:
    heard = shown(terminal, image, {"TERM": "xterm"}, width_columns=8)
    pixels = block_pixels(heard.decode())
    assert len(pixels) == 8 * 4
    assert pixels[0] == ((250, 10, 20), (250, 10, 20))
    assert pixels[-1] == ((240, 240, 0), (240, 240, 0))


def test_never_larger_than_the_terminal(
    terminal: Any, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    (sent,) = kitty_pictures(shown(terminal, image.resize((4_000, 4_000)), KITTY))
    assert int(sent.keys["c"]) <= 19
    assert max(sent.image.size) <= 200


@pytest.mark.parametrize("columns", ["5", "8"])
def test_nothing_on_a_tiny_one(
    terminal: Any, image: Image.Image, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert not show(image, Console(file=terminal.stream), environment=KITTY)
    assert terminal.heard() == b""


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, KITTY | {"NO_COLOR": "1"}])
def test_nothing_where_it_is_not_wanted(
    terminal: Any, image: Image.Image, environment: dict[str, str]
) -> None:
    assert not show(image, Console(file=terminal.stream), environment=environment)
    assert terminal.heard() == b""


def test_nothing_into_a_file(tmp_path: Path, image: Image.Image) -> None:
    with (tmp_path / "file").open("w") as file:
        assert not show(image, Console(file=file, force_terminal=True), environment=KITTY)
    assert (tmp_path / "file").read_bytes() == b""


def test_nothing_of_what_is_no_picture(terminal: Any) -> None:
    console = Console(file=terminal.stream)
    huge = png(Image.new("1", (20_000, 20_000)))
    for data in (b"", b"hello", png(Image.new("RGB", (8, 8)))[:40], huge):
        assert decoded(data) is None
        assert not show(data, console, environment=KITTY)
    assert terminal.heard() == b""


def test_a_terminal_that_is_gone(terminal: Any, image: Image.Image) -> None:
    console = Console(file=terminal.stream)
    terminal.close()
    with pytest.raises(ValueError, match="closed"):
        show(image, console, environment=KITTY)
