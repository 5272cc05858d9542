"""Progress of pictures: lines that move on a terminal, a word now and then elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdq.cli.output import Sink, as_duration, cut, held_up_by, plain
from sdq.protocol.messages import Progress
from sdq.protocol.states import JobState

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.progress import TaskID

    from sdq.cli.bars import Bars
    from sdq.cli.preview import Painter

MAX_LINES = 6
"""Pictures shown at once; the others wait for a line."""

LOST = "lost the server, reconnecting"
FOUND = "connected again"

MAX_NOTES = 20
"""Different reasons for waiting that are told when there is no terminal."""

_LABEL_COLUMNS = 28


class QuietDisplay:
    """No terminal: says once why a picture has to wait, if there is a reason."""

    shows_previews = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._told: set[str] = set()
        self._is_lost = False

    def show(self, number: int, label: str, news: Progress | None) -> None:
        """What is known of picture ``number`` (``{n}``); ``None``: just accepted."""
        reason = "" if news is None else held_up_by(news.ahead, news.note)
        if reason and reason not in self._told and len(self._told) < MAX_NOTES:
            self._told.add(reason)
            self._sink.say(f"waiting: {plain(reason)}")

    def gone(self, number: int) -> None:
        """The picture is there, or will not come."""

    def lost(self) -> None:
        """The server is gone and is looked for. Each request may say so."""
        if not self._is_lost:
            self._is_lost = True
            self._sink.say(LOST)

    def found(self) -> None:
        """It is back."""
        if self._is_lost:
            self._is_lost = False
            self._sink.say(FOUND)

    def close(self) -> None:
        """No more news."""


@dataclass
class _Line:
    """What is known of one picture under way."""

    label: str
    state: str = "waiting"
    step: int = 0
    steps: int | None = None  # None: nobody knows yet


class LiveDisplay:
    """One line for each of the first pictures under way, on standard error.

    ``painter``: below them the newest preview of some; ``None``: nobody wants any, or the terminal
    cannot show them.
    """

    def __init__(self, sink: Sink, painter: "Painter | None" = None) -> None:
        self.shows_previews = painter is not None
        self._painter = painter
        self._pictures: dict[int, Image] = {}
        self._sink = sink
        self._is_lost = False
        self._told_lost = False  # in a line of its own: there was no picture to say it at
        self._bars: Bars | None = None
        self._lines: dict[int, _Line] = {}
        self._tasks: dict[int, TaskID] = {}
        sink.hidden = self.hidden

    def show(self, number: int, label: str, news: Progress | None) -> None:
        """What is known of picture ``number`` (``{n}``); ``None``: just accepted."""
        if number not in self._lines and len(self._lines) >= MAX_LINES:
            return
        line = self._lines.setdefault(number, _Line(cut(plain(label), _LABEL_COLUMNS)))
        if news is not None:
            line.state, line.step = state_of(news), news.step
            line.steps = news.steps if news.state is JobState.RUNNING else None
            self._keep(number, news.preview)
        self._draw(number)

    def gone(self, number: int) -> None:
        """The picture is there, or will not come."""
        self._lines.pop(number, None)
        self._pictures.pop(number, None)
        if self._bars is not None and number in self._tasks:
            self._bars.remove_task(self._tasks.pop(number))

    def lost(self) -> None:
        """The server is gone and is looked for. Each request may say so."""
        if self._is_lost:
            return
        self._is_lost = True
        if not self._lines:
            self._told_lost = True
            self._sink.say(LOST)
        for number, line in self._lines.items():
            line.state = "reconnecting…"
            self._draw(number)

    def found(self) -> None:
        """It is back; the next news say how each picture is."""
        if not self._is_lost:
            return
        self._is_lost = False
        if self._told_lost:
            self._told_lost = False
            self._sink.say(FOUND)
        for number, line in self._lines.items():
            line.state = "waiting"
            self._draw(number)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Off the terminal for as long as something else is written."""
        self._erase()
        try:
            yield
        finally:
            for number in self._lines:
                self._draw(number)

    def close(self) -> None:
        """Takes all of it away and shows the cursor again."""
        self._lines.clear()
        self._pictures.clear()
        self._erase()

    def _keep(self, number: int, preview: bytes) -> None:
        if not preview or not self.shows_previews:
            return
        from sdq.cli.preview import decoded

        image = decoded(preview)
        if image is not None:
            self._pictures[number] = image

    def _draw(self, number: int) -> None:
        if self._bars is None:
            from sdq.cli.bars import Bars  # Rich, 30 ms, for waiting people only

            self._bars = Bars(self._painter, self._pictures)
            self._bars.start()
        line = self._lines[number]
        if number not in self._tasks:
            self._tasks[number] = self._bars.add_task(line.label, total=None, state="")
        self._bars.update(
            self._tasks[number], total=line.steps, completed=line.step, state=line.state
        )

    def _erase(self) -> None:
        # New bars each time: Rich's own remember where the old ones stood, and would be
        # drawn over what was written in between.
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()


def display_for(
    sink: Sink, *, preview: bool = False, pictures: str = "auto"
) -> QuietDisplay | LiveDisplay:
    """Moving lines only where a person watches, and has not asked for silence.

    ``pictures``: how to draw previews, as in ``client.pictures``.
    """
    if not sys.stderr.isatty() or sink.quiet:
        return QuietDisplay(sink)
    if not preview:
        return LiveDisplay(sink)
    from sdq.cli.preview import painter_for

    return LiveDisplay(sink, painter_for(sys.stderr, setting=pictures))


def state_of(news: Progress) -> str:
    """How far a picture is, in words."""
    eta = None if news.eta_seconds is None else as_duration(news.eta_seconds)
    if news.state is JobState.RUNNING:
        state = f"step {news.step} of {news.steps}" if news.step else "starting"
        return state if eta is None else f"{state}, {eta} left"
    if reason := held_up_by(news.ahead, news.note):
        state = f"waiting: {plain(reason)}"
    elif news.ahead:
        state = f"queued, {news.ahead} ahead"
    else:
        state = "queued"
    return state if eta is None else f"{state}, about {eta}"
