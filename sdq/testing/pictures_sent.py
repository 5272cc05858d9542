"""Reads pictures back out of what was sent to a terminal: the other side of `sdq.cli.pictures`.

Written from the protocols alone, so that a mistake on one side is not repeated on the other.
"""

import base64
import io
import re
from dataclasses import dataclass, field

from PIL import Image

_KITTY = re.compile(rb"\x1b_G([^;\x1b]*);?([^\x1b]*)\x1b\\")
_ITERM2 = re.compile(rb"\x1b\]1337;File=([^:\x07]*):([^\x07]*)\x07")
_SIXEL = re.compile(rb"\x1bP[\d;]*q([^\x1b]*)\x1b\\")
_TMUX = re.compile(rb"\x1bPtmux;((?:\x1b\x1b|[^\x1b])*)\x1b\\")
_BLOCK = re.compile("\x1b\\[[\\d;]*38;2;(\\d+);(\\d+);(\\d+);48;2;(\\d+);(\\d+);(\\d+)m(▀+)")
_SIXEL_TOKEN = re.compile(rb"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|([$-])")

PLACEHOLDER = "\U0010eeee"


@dataclass
class Sent:
    """A picture, and what was said of it (``keys``, as the protocol names them)."""

    keys: dict[str, str]
    image: Image.Image


@dataclass
class KittyTerminal:
    """What a kitty remembers of what it was told. Raises `AssertionError` for what breaks the
    protocol."""

    sent: list[Sent] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)

    def feed(self, data: bytes) -> "KittyTerminal":
        keys: dict[str, str] = {}
        collected = b""
        for match in _KITTY.finditer(data):
            said = dict(part.split("=") for part in match[1].decode().split(","))
            assert len(match[2]) <= 4_096
            assert said.get("q") == "2", "its answer would be typed into the shell"
            if said.get("a") == "d":
                self.deleted.append(int(said["i"]))
                continue
            keys = keys or said
            collected += match[2]
            if said["m"] == "0":
                self.sent.append(Sent(keys, _png(base64.b64decode(collected, validate=True))))
                keys, collected = {}, b""
        assert not collected, "a picture was not sent to its end"
        return self


def kitty_pictures(data: bytes) -> list[Sent]:
    """All that a kitty was shown."""
    return KittyTerminal().feed(data).sent


def out_of_tmux(data: bytes) -> bytes:
    """What the terminal around tmux is handed of it."""
    return b"".join(match[1].replace(b"\x1b\x1b", b"\x1b") for match in _TMUX.finditer(data))


def iterm2_pictures(data: bytes) -> list[Sent]:
    """All that an iTerm2 was shown. Raises `AssertionError` for a size that is not true."""
    found = []
    for match in _ITERM2.finditer(data):
        keys = dict(part.split("=") for part in match[1].decode().split(";"))
        content = base64.b64decode(match[2], validate=True)
        assert int(keys["size"]) == len(content)
        found.append(Sent(keys, _png(content)))
    return found


def sixel_pictures(data: bytes) -> list[Sent]:
    """All that a terminal with sixels was shown."""
    return [_sixel(match[1]) for match in _SIXEL.finditer(data)]


def block_pixels(text: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Upper and lower colour of each half block, in the order in which they were sent."""
    return [
        (tuple(map(int, match.groups()[:3])), tuple(map(int, match.groups()[3:6])))
        for match in _BLOCK.finditer(text)
        for _ in match[7]
    ]


def _png(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return image.convert("RGB")


def _sixel(body: bytes) -> Sent:
    raster = re.match(rb'"(\d+);(\d+);(\d+);(\d+)', body)
    assert raster is not None
    width, height = int(raster[3]), int(raster[4])
    image = Image.new("RGB", (width, height))
    colours: dict[int, tuple[int, int, int]] = {}
    colour, x, top = 0, 0, 0
    for token in _SIXEL_TOKEN.finditer(body, raster.end()):
        if token[1]:
            colour = int(token[1])
            if token[2]:
                red, green, blue = (round(int(part) * 255 / 100) for part in token.groups()[1:4])
                colours[colour] = red, green, blue
        elif token[8]:
            x, top = 0, top + 6 * (token[8] == b"-")
        else:
            sixel = (token[6] or token[7])[0] - 0x3F
            end = x + int(token[5] or 1)
            for bit in range(6):
                if sixel >> bit & 1:
                    image.paste(colours[colour], (x, top + bit, end, top + bit + 1))
            x = end
    return Sent({"width": str(width), "height": str(height)}, image)
