"""`sdq top` on a terminal: the alternate screen, drawn anew each second, with Rich.

From 40 columns and 10 lines on; at 80 by 24 there is room for some workers and the last events.
"""

import asyncio
import contextlib
import os
import sys
import termios
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sdq.cli.output import as_duration, cut
from sdq.cli.top_view import (
    WORKER_TITLES,
    Look,
    drawn_line,
    event_lines,
    head_lines,
    look,
    person_lines,
    worker_row,
)
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.client.losses import may_pass
from sdq.config import ClientSettings
from sdq.errors import ConnectionFailed

INTERVAL_SECONDS = 1.0
MAX_PEOPLE_LINES = 4
_KEYS = "q ends"
_QUIT = frozenset(b"qQ")
_SIZE_SECONDS = 0.2
"""How soon a new size of the window is seen."""

_COLOURS = {"drawing": "green", "ready": "cyan", "loading": "yellow"}


async def watch(settings: ClientSettings) -> int:
    """Until q (0) or a cancel. A lost server is looked for for ever; one that is not there at the
    beginning raises `ConnectionFailed`."""
    async with connect(settings.server, reconnect_seconds=settings.reconnect_seconds) as client:
        screen = Screen(Console())
        screen.seen = await look(client)
        with _keys() as quit_pressed:
            with screen:
                looking = asyncio.create_task(_look_on(client, screen))
                try:
                    await _until(quit_pressed, screen, looking)
                finally:
                    looking.cancel()
                    await asyncio.gather(looking, return_exceptions=True)
            return 0


async def _until(
    quit_pressed: asyncio.Event, screen: "Screen", looking: "asyncio.Task[None]"
) -> None:
    """Draws until q is pressed, or looking on fails: with its error then."""
    while not quit_pressed.is_set() and not looking.done():
        screen.draw_if_changed()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(quit_pressed.wait(), _SIZE_SECONDS)
    if looking.done():
        looking.result()


async def _look_on(client: Client, screen: "Screen") -> None:
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        try:
            screen.seen = await look(client)
            screen.lost_at = None
        except ConnectionFailed as error:
            if not may_pass(error):
                raise
            if screen.lost_at is None:
                screen.lost_at = time.monotonic()
        screen.is_old = True


class Screen:
    """The alternate screen of a terminal, while it is entered."""

    def __init__(self, console: Console) -> None:
        self.seen: Look | None = None
        self.lost_at: float | None = None
        self.is_old = True
        self._console = console
        self._size = console.size
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw_if_changed(self) -> None:
        """Draws what was seen last, when that or the window is new."""
        size = self._console.size
        if self.seen is None or (not self.is_old and size == self._size):
            return
        self._size, self.is_old = size, False
        lost = None if self.lost_at is None else time.monotonic() - self.lost_at
        self._live.update(view_of(self.seen, size.width, size.height, lost), refresh=True)


def view_of(
    seen: Look, columns: int, lines: int, lost_seconds: float | None = None
) -> RenderableType:
    """As much as there is room for: nothing wraps, and what is left out is said.

    ``lost_seconds``: how long the server has been away; ``None``: it is there.
    """
    activity, workers = seen.activity, seen.status.workers
    parts: list[RenderableType] = [_title(columns, lost_seconds)]
    parts += [Text(cut(line, columns)) for line in (*head_lines(seen), drawn_line(activity))]
    people = person_lines(activity, max(1, min(MAX_PEOPLE_LINES, lines - 10)))
    room = lines - len(parts) - len(people) - 4  # titles and empty lines
    events = event_lines(activity)
    worker_lines = max(1, min(len(workers), room - min(len(events), max(2, room // 3))))
    parts += [Text(cut(line, columns)) for line in people]
    parts += [Text(""), _workers(seen, columns, worker_lines)]
    left = room - worker_lines
    if left > 0 and events:
        parts += [Text(""), *(Text(cut(line, columns), style="dim") for line in events[:left])]
    return Group(*parts)


def _title(columns: int, lost_seconds: float | None) -> Text:
    if lost_seconds is not None:
        words = f"lost the server {as_duration(lost_seconds)} ago, reconnecting"
        return Text(cut(f" {words} ".ljust(columns), columns), style="black on yellow")
    return Text(cut(f" sdq top   {_KEYS} ".ljust(columns), columns), style="reverse")


def _workers(seen: Look, columns: int, most: int) -> RenderableType:
    workers = seen.status.workers
    if not workers:
        return Text(cut("no workers online: `sdq worker run` starts one", columns))
    has_notes = any(worker.note for worker in workers)
    titles = WORKER_TITLES if has_notes else WORKER_TITLES[:-1]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title in titles:
        keeps = title in ("STATE", "JOBS", "STEPS/S", "FREE")
        table.add_column(
            title, no_wrap=True, overflow="ellipsis",
            justify="right" if title in ("JOBS", "STEPS/S", "FREE") else "left",
            min_width=len(title) if keeps else 6,
        )  # fmt: skip
    hidden = len(workers) - most
    for worker in workers[: most if hidden <= 0 else max(1, most - 1)]:
        cells = [Text(cell) for cell in worker_row(worker)[: len(titles)]]
        cells[1].stylize(_COLOURS.get(worker.state, "red"))
        table.add_row(*cells)
    if hidden <= 0:
        return table
    return Group(table, Text(f"and {hidden + (most > 1)} more workers", style="dim"))


@contextlib.contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """Set once q is pressed. The terminal's mode is put back; Ctrl-C stays what it is. Without a
    terminal to type at, never."""
    pressed = asyncio.Event()
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (OSError, ValueError, termios.error):
        yield pressed
        return
    quiet = termios.tcgetattr(fd)
    quiet[3] &= ~(termios.ICANON | termios.ECHO)

    def read() -> None:
        data = os.read(fd, 64)
        if not data:
            loop.remove_reader(fd)
        if _QUIT.intersection(data):
            pressed.set()

    loop = asyncio.get_running_loop()
    termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
    loop.add_reader(fd, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
