"""How far `sdq worker install` is: a bar on a terminal, lines elsewhere, objects as JSON."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sdq.cli.output import as_bytes, plain, print_json, tell

if TYPE_CHECKING:
    from sdq.worker.install import InstallProgress

JSON_INTERVAL_SECONDS = 0.5
"""The least time between two objects of one phase of one file."""

Report = Callable[["InstallProgress"], None]

_WORDS = {
    "download": "fetching",
    "verify": "verifying",
    "canary": "drawing a first picture",
}


@contextmanager
def reporter(as_json: bool) -> Iterator[Report]:
    """A function that shows progress until the block ends."""
    if as_json:
        yield _json_reporter()
    elif sys.stderr.isatty():
        with _bar_reporter() as report:
            yield report
    else:
        yield _line_reporter()


def _what(progress: "InstallProgress") -> str:
    words = _WORDS.get(progress.phase, "")
    return f"{words} {plain(progress.file)}" if words and progress.file else words


def _json_reporter() -> Report:
    last: tuple[object, float] = (None, 0.0)

    def report(progress: "InstallProgress") -> None:
        nonlocal last
        now, step = time.monotonic(), (progress.phase, progress.file)
        is_whole = progress.done_bytes == progress.total_bytes
        if step == last[0] and now - last[1] < JSON_INTERVAL_SECONDS and not is_whole:
            return
        last = (step, now)
        print_json(
            {
                "phase": progress.phase,
                "file": progress.file,
                "done_bytes": progress.done_bytes,
                "total_bytes": progress.total_bytes,
            }
        )

    return report


def _line_reporter() -> Report:
    """Each file that is fetched, and the other phases once: a model may have dozens of files."""
    told: set[str] = set()

    def report(progress: "InstallProgress") -> None:
        is_fetched = progress.phase == "download"
        what = _what(progress) if is_fetched else _WORDS.get(progress.phase, "")
        if what and what not in told:
            told.add(what)
            tell(what)

    return report


@contextmanager
def _bar_reporter() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[amount]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    line = bars.add_task("", total=None, amount="")

    def report(progress: "InstallProgress") -> None:
        fields: dict[str, Any] = {"description": _what(progress), "amount": ""}
        if progress.phase in ("download", "verify"):
            fields["amount"] = as_bytes(progress.done_bytes)
            if progress.total_bytes:
                fields["amount"] += f" of {as_bytes(progress.total_bytes)}"
        total = progress.total_bytes or None
        bars.update(line, total=total, completed=progress.done_bytes, **fields)

    with bars:
        yield report
