"""How far a batch is: on a terminal a table that moves, elsewhere a word now and then."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from sdq.cli.output import Sink, as_duration, columns_of, cut, plain
from sdq.cli.progress import LOST, QuietDisplay, state_of
from sdq.protocol.messages import Progress

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

MAX_LINES = 6
"""Lines under way that are shown; the others are counted."""

_LABEL_COLUMNS = 34
_BAR_COLUMNS = 30
_MIN_BAR_COLUMNS = 8
_FREE_COLUMNS = 2  # for the ^C that a terminal echoes
_PACE_BURSTS = 50
_BURST_SECONDS = 1.0
_REFRESH_PER_SECOND = 8


class Counts(msgspec.Struct):
    """Pictures, of all lines so far. ``total``: of the whole file; ``None``: nobody knows yet."""

    total: int | None = None
    made: int = 0
    hits: int = 0
    up_to_date: int = 0
    failed: int = 0
    running: int = 0

    @property
    def done(self) -> int:
        return self.made + self.hits + self.up_to_date

    @property
    def ended(self) -> int:
        return self.done + self.failed


class Pace:
    """How fast pictures are drawn of late; those of the library come at no cost.

    Workers draw several at once, so they come in bursts: the gaps inside one say nothing. What
    comes within `_BURST_SECONDS` is one burst, and its time is that since the one before, or since
    the first line was asked for.
    """

    def __init__(self) -> None:
        self._bursts: deque[tuple[float, int]] = deque(maxlen=_PACE_BURSTS)  # from when, pictures

    def begin(self) -> None:
        """The first line is asked for; later calls change nothing."""
        if not self._bursts:
            self._bursts.append((time.monotonic(), 0))

    def picture(self) -> None:
        """One was drawn."""
        self.begin()
        now = time.monotonic()
        at, pictures = self._bursts[-1]
        if pictures and now - at < _BURST_SECONDS:
            self._bursts[-1] = at, pictures + 1
        else:
            self._bursts.append((now, 1))

    def seconds_for(self, pictures: int) -> float | None:
        """How long so many more take; ``None``: nobody knows yet."""
        bursts = [*self._bursts]
        came = sum(count for _, count in bursts[1:])
        if not came or not pictures:
            return None
        return pictures * (time.monotonic() - bursts[0][0]) / came


class BatchTable:
    """Two lines of counts and one for each of the first lines under way, on standard error."""

    def __init__(self, sink: Sink, counts: Counts) -> None:
        self._counts = counts
        self._pace = Pace()
        self._lines: dict[int, tuple[str, str]] = {}  # by ticket: label and state
        self._is_lost = False
        self._live: Live | None = None
        sink.hidden = self.hidden
        self._start()

    def show(self, ticket: int, label: str, news: Progress | None) -> None:
        """What is known of a line under way; ``None``: just asked for."""
        self._pace.begin()
        if ticket in self._lines or len(self._lines) < MAX_LINES:
            state = "waiting" if news is None else state_of(news)
            self._lines[ticket] = (plain(label), state)

    def gone(self, ticket: int) -> None:
        """It is not under way any more."""
        self._lines.pop(ticket, None)

    def drawn(self) -> None:
        """A picture was drawn."""
        self._pace.picture()

    def lost(self) -> None:
        """The server is gone and is looked for."""
        self._is_lost = True

    def found(self) -> None:
        """It is back."""
        self._is_lost = False

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Off the terminal for as long as something else is written."""
        was_shown = self._live is not None
        self.close()
        try:
            yield
        finally:
            if was_shown:
                self._start()

    def close(self) -> None:
        """Takes it away and shows the cursor again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            get_renderable=self._render,
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=_REFRESH_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _render(self) -> "Group":
        """Called by Rich for each refresh, in a thread of its own: it only reads."""
        from rich.console import Group
        from rich.text import Text

        columns = self._live.console.width - _FREE_COLUMNS if self._live is not None else 78
        rows = [self._bar(columns), counts_in_words(self._counts)]
        label_columns = min(_LABEL_COLUMNS, columns // 2)
        for label, state in [*self._lines.values()]:
            name = cut(label, label_columns)
            rows.append(f"  {name}{' ' * (label_columns - columns_of(name))}  {state}")
        return Group(*(Text(cut(row, columns), no_wrap=True) for row in rows))

    def _bar(self, columns: int) -> str:
        counts = self._counts
        if self._is_lost:
            return LOST
        if counts.total is None:
            return f"{counts.ended} pictures so far"
        left = max(0, counts.total - counts.ended)
        eta = self._pace.seconds_for(left)
        about = "" if eta is None else f", about {as_duration(eta)}"
        words = f"{counts.ended} of {counts.total}, {left} left{about}"
        room = min(_BAR_COLUMNS, columns - len(words) - 2)
        if room < _MIN_BAR_COLUMNS:
            return words
        share = counts.ended / counts.total if counts.total else 1.0
        full = round(min(1.0, share) * room)
        return "━" * full + " " * (room - full) + "  " + words


class QuietTable(QuietDisplay):
    """No terminal: why lines have to wait, once; and that the server is gone."""

    def drawn(self) -> None:
        """A picture was drawn."""


def counts_in_words(counts: Counts) -> str:
    """``12 done: 5 made, 4 from the library, 3 up to date; 2 running``."""
    kinds = {
        "made": counts.made,
        "from the library": counts.hits,
        "up to date": counts.up_to_date,
    }
    what = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    text = f"{counts.done} done" + (f": {what}" if what else "")
    more = [f"{counts.failed} failed"] if counts.failed else []
    more += [f"{counts.running} running"] if counts.running else []
    return "; ".join([text, *more])


def table_for(sink: Sink, counts: Counts) -> BatchTable | QuietTable:
    """A table only where a person watches, and has not asked for silence."""
    if sys.stderr.isatty() and not sink.quiet:
        return BatchTable(sink, counts)
    return QuietTable(sink)
