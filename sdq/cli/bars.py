"""The moving part of a terminal: a line for each picture under way, and what is to be seen of some.

Imports Rich (30 ms): for waiting people only.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from sdq.cli.preview import Painter

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PICTURES = 3
"""Side by side; the first ones that there is something to be seen of."""

PICTURES_PER_SECOND = 5
"""As often as previews come: each takes milliseconds to paint and to print."""

MAX_PICTURE_LINES = 16
MIN_PICTURE_LINES = 4
MIN_PICTURE_COLUMNS = 16
_GAP = 1
_FREE_LINES = 2
"""Of the terminal's height: the command that was typed stays in sight."""

_FREE_COLUMNS = 2
"""Right of the last line: the ^C that a terminal echoes must not wrap into a line of its own, which
nobody would erase."""


class _Painted(NamedTuple):
    image: "Image"
    size: tuple[int, int]  # columns and lines
    painted: RenderableType


class Bars(Progress):
    """Rich's own, with pictures below. ``pictures``: by the caller, who may change it."""

    def __init__(self, painter: Painter | None, pictures: "dict[int, Image]") -> None:
        self._painter = painter
        self._pictures = pictures
        self._painted: dict[int, _Painted] = {}
        self._screen = Console(stderr=True)  # Rich asks for the first lines before it has its own
        # Not expanded: see `_FREE_COLUMNS`.
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}", markup=False, table_column=Column(no_wrap=True)),
            console=self._screen,
            transient=True,
            refresh_per_second=10 if painter is None else PICTURES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def stop(self) -> None:
        """Takes all of it off the terminal, and the pictures out of its memory."""
        super().stop()
        farewell = "" if self._painter is None else self._painter.farewell()
        if farewell:
            self._screen.file.write(farewell)
            self._screen.file.flush()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Called by Rich for each refresh, in a thread of its own."""
        yield self.make_tasks_table(self.tasks)
        row = self._row(sorted(self._pictures.items()))
        if row is not None:
            yield row

    def _row(self, pictures: "list[tuple[int, Image]]") -> RenderableType | None:
        """The pictures side by side; ``None`` without any, or without room for them."""
        width, height = self._screen.width - _FREE_COLUMNS, self._screen.height
        lines = min(MAX_PICTURE_LINES, height - len(self.tasks) - _FREE_LINES)
        count = min(len(pictures), MAX_PICTURES, (width + _GAP) // (MIN_PICTURE_COLUMNS + _GAP))
        if self._painter is None or count < 1 or lines < MIN_PICTURE_LINES:
            return None
        columns = (width + _GAP) // count - _GAP
        before, self._painted = self._painted, {}
        for place, (number, image) in enumerate(pictures[:count]):
            done = before.get(number)
            if done is None or done.image is not image or done.size != (columns, lines):
                painted = self._painter.paint(image, columns, lines, place)
                done = _Painted(image, (columns, lines), painted)
            self._painted[number] = done
        row = Table.grid(padding=(0, _GAP, 0, 0))
        row.add_row(*(done.painted for done in self._painted.values()))
        return row
