"""Progress of pictures: lines that move on a terminal, a word now and then elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdq.cli.output import Sink, plain
from sdq.protocol.messages import Progress
from sdq.protocol.states import JobState

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

MAX_LINES = 6
"""Pictures shown at once; the others wait for a line."""

MAX_NOTES = 20
"""Different reasons for waiting that are told when there is no terminal."""

_LABEL_CHARACTERS = 28


class QuietDisplay:
    """No terminal: says once why a picture has to wait, if there is a reason."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._told: set[str] = set()

    def show(self, number: int, label: str, news: Progress | None) -> None:
        """What is known of picture ``number`` (``{n}``); ``None``: just accepted."""
        if news is None or not news.note or news.ahead or len(self._told) >= MAX_NOTES:
            return
        if news.note not in self._told:
            self._told.add(news.note)
            self._sink.say(f"waiting: {plain(news.note)}")

    def gone(self, number: int) -> None:
        """The picture is there, or will not come."""

    def close(self) -> None:
        """No more news."""


class LiveDisplay:
    """One line for each of the first pictures under way, on standard error."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._bars: Bars | None = None
        self._lines: dict[int, TaskID] = {}
        sink.hidden = self.hidden

    def show(self, number: int, label: str, news: Progress | None) -> None:
        """What is known of picture ``number`` (``{n}``); ``None``: just accepted."""
        if number not in self._lines and len(self._lines) >= MAX_LINES:
            return
        bars = self._started()
        if number not in self._lines:
            text = _shortened(plain(label))
            self._lines[number] = bars.add_task(text, total=None, state="waiting", start=False)
        line = self._lines[number]
        if news is None:
            return
        total = news.steps if news.state is JobState.RUNNING and news.steps else None
        bars.update(line, total=total, completed=news.step, state=_state_of(news))

    def gone(self, number: int) -> None:
        """The picture is there, or will not come."""
        if self._bars is not None and number in self._lines:
            self._bars.remove_task(self._lines.pop(number))

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Off the terminal for as long as something else is written."""
        if self._bars is None:
            yield
            return
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()

    def close(self) -> None:
        """Takes the lines away and shows the cursor again."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        self._lines.clear()

    def _started(self) -> "Bars":
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        return self._bars


def display_for(sink: Sink) -> QuietDisplay | LiveDisplay:
    """Moving lines only where a person watches, and has not asked for silence."""
    if sys.stderr.isatty() and not sink.quiet:
        return LiveDisplay(sink)
    return QuietDisplay(sink)


def _bars() -> "Bars":
    from rich.console import Console  # 30 ms, for waiting people only
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    return Bars(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=3)),
        BarColumn(bar_width=None, table_column=Column(ratio=2, max_width=24)),
        TextColumn(
            "{task.fields[state]}", markup=False, table_column=Column(no_wrap=True, ratio=4)
        ),
        console=Console(stderr=True),
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _shortened(label: str) -> str:
    if len(label) <= _LABEL_CHARACTERS:
        return label
    return label[: _LABEL_CHARACTERS - 1] + "…"


def _state_of(news: Progress) -> str:
    if news.state is JobState.RUNNING:
        return f"step {news.step} of {news.steps}" if news.step else "starting"
    if news.ahead:
        return f"queued, {news.ahead} ahead"
    return f"waiting: {plain(news.note)}" if news.note else "queued"
