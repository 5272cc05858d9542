"""Pictures below the lines: as many and as large as there is room for."""

import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

from sdq.cli.bars import MAX_PICTURES, Bars
from sdq.cli.preview import HalfBlocks


def pictures(count: int) -> dict[int, Image.Image]:
    return {number: Image.new("RGB", (16, 16), (number, 0, 0)) for number in range(count, 0, -1)}


def shown(bars: Bars) -> list[tuple[int, int]]:
    """Columns and lines of each picture."""
    tables = list(bars.get_renderables())
    if len(tables) < 2:
        return []
    assert isinstance(tables[1], Table)
    cells = [cell for column in tables[1].columns for cell in column.cells]
    texts = [cell.plain.split("\n") for cell in cells if isinstance(cell, Text)]
    return [(len(lines[0]), len(lines)) for lines in texts]


@pytest.mark.parametrize(
    ("columns", "lines", "count", "expected"),
    [
        (80, 24, 0, []),
        (80, 24, 1, [(32, 16)]),
        (80, 24, 3, [(25, 12)] * 3),
        (80, 24, 6, [(25, 12)] * MAX_PICTURES),
        (40, 24, 2, [(18, 9)] * 2),
        (20, 24, 2, [(18, 9)]),
        (10, 24, 2, []),
        (80, 10, 1, [(14, 7)]),
        (80, 6, 1, []),
    ],
)
def test_what_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    lines: int,
    count: int,
    expected: list[tuple[int, int]],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    bars = Bars(HalfBlocks(), pictures(count))
    bars.add_task("a cat", state="")
    assert shown(bars) == expected
    used = sum(width for width, _ in expected) + max(0, len(expected) - 1)
    assert used <= columns - len("^C")  # else its echo begins a line that stays


def test_without_a_painter_there_are_lines_only() -> None:
    bars = Bars(None, pictures(2))
    assert shown(bars) == []


def test_a_picture_is_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    painted = []

    class Counting(HalfBlocks):
        def paint(self, image: Image.Image, columns: int, lines: int, place: int = 0) -> Text:
            painted.append(image)
            return Text("x")

    watched = pictures(2)
    bars = Bars(Counting(), watched)
    before = len(painted)
    for _ in range(3):
        list(bars.get_renderables())
    assert painted[:2] == [watched[1], watched[2]]  # in the order of their lines
    assert before == len(painted) == 2
    watched[2] = Image.new("RGB", (16, 16))
    list(bars.get_renderables())
    assert painted[2:] == [watched[2]]
