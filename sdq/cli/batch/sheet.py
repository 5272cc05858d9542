"""A contact sheet: pictures in rows and columns, each with a label."""

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sdq.cli.files import ELSEWHERE
from sdq.cli.output import cut
from sdq.client.saving import format_of, write_whole
from sdq.errors import OutputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

MAX_SIDE_PIXELS = 8_192
MAX_CELL_PIXELS = 512
MAX_LABEL_CHARACTERS = 60
MAX_TITLE_CHARACTERS = 400
_MAKER = "sdq sweep"
_SOFTWARE = 0x0131  # the EXIF field
_GAP = 8
_LETTER_PIXELS = 16
_LINE_PIXELS = 24
_PAPER, _INK, _MISSING = "white", "black", "#d0d0d0"


class Sheet:
    """``columns`` and ``rows``: their labels. Keeps each picture as small as it will be shown."""

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[str]) -> None:
        self._title = title
        self._columns = columns
        self._rows = rows
        most = MAX_SIDE_PIXELS - 1_000  # labels
        self._cell_pixels = min(MAX_CELL_PIXELS, most // max(len(columns), len(rows)) - _GAP)
        self._pictures: dict[int, Image] = {}

    def put(self, place: int, data: bytes) -> None:
        """A picture at its place, counted row by row from 0."""
        from PIL import Image

        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            small = image.convert("RGB")
        small.thumbnail((self._cell_pixels, self._cell_pixels))
        self._pictures[place] = small

    def save(self, path: Path) -> None:
        """Writes the sheet, whole or not at all; a place without its picture is grey. Raises
        `OutputError`."""
        image = self._drawn()
        exif = image.getexif()
        exif[_SOFTWARE] = _MAKER
        buffer = io.BytesIO()
        image.save(buffer, format_of(path), exif=exif.tobytes(), quality=92)
        write_whole(path, buffer.getvalue(), elsewhere=ELSEWHERE)

    def _drawn(self) -> "Image":
        from PIL import Image, ImageDraw, ImageFont

        font = ImageFont.load_default(_LETTER_PIXELS)
        width, height = self._cell_size()
        left = 2 * _GAP + max((int(font.getlength(_label(row))) for row in self._rows), default=0)
        column_lines = bool(any(self._columns))
        top = _GAP + _LINE_PIXELS * (1 + column_lines)
        size = (
            left + len(self._columns) * (width + _GAP),
            top + len(self._rows) * (height + _GAP),
        )
        sheet = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(sheet)
        _write(draw, font, (_GAP, _GAP), self._title, size[0] - 2 * _GAP)
        for x, label in enumerate(self._columns):
            place = (left + x * (width + _GAP), _GAP + _LINE_PIXELS)
            _write(draw, font, place, _label(label), width)
        for y, row in enumerate(self._rows):
            corner = top + y * (height + _GAP)
            _write(
                draw, font, (_GAP, corner + height // 2 - _LETTER_PIXELS // 2), _label(row), left
            )
            for x in range(len(self._columns)):
                at = (left + x * (width + _GAP), corner)
                picture = self._pictures.get(y * len(self._columns) + x)
                if picture is None:
                    draw.rectangle((*at, at[0] + width - 1, at[1] + height - 1), fill=_MISSING)
                else:
                    middle = (width - picture.width) // 2, (height - picture.height) // 2
                    sheet.paste(picture, (at[0] + middle[0], at[1] + middle[1]))
        return sheet

    def _cell_size(self) -> tuple[int, int]:
        """The largest picture's; a square without any."""
        pictures = self._pictures.values()
        if not pictures:
            return (self._cell_pixels // 4,) * 2
        return max(one.width for one in pictures), max(one.height for one in pictures)


def refuse_foreign(path: Path, *, force: bool) -> None:
    """Raises `OutputError` for a file that is there and no sheet of ours; `UsageError` for an
    ending that means no format."""
    format_of(path)
    if force or not (path.exists() or path.is_symlink()) or _is_ours(path):
        return
    raise OutputError(
        f"{path} exists and is no sheet of `{_MAKER}`", hint="choose another --grid, or --force"
    )


def _is_ours(path: Path) -> bool:
    from PIL import Image

    odd = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
    with suppress(*odd), Image.open(path) as image:
        return bool(image.getexif().get(_SOFTWARE) == _MAKER)
    return False


def _label(text: str) -> str:
    return cut(text, MAX_LABEL_CHARACTERS)


def _write(
    draw: "object",
    font: "FreeTypeFont | ImageFont",
    place: tuple[int, int],
    text: str,
    width: int,
) -> None:
    """A line of text, cut where its room ends."""
    from PIL.ImageDraw import ImageDraw

    assert isinstance(draw, ImageDraw)
    text = text.replace("\n", " ")[:MAX_TITLE_CHARACTERS]
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(place, text, fill=_INK, font=font)
