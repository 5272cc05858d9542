"""How far `sdq worker install` is: a bar on a terminal, lines elsewhere, objects as JSON."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sdq.cli.output import as_bytes, as_duration, plain, print_json, tell

if TYPE_CHECKING:
    from sdq.worker.install import Installed, InstallProgress

JSON_INTERVAL_SECONDS = 0.5
"""The least time between two objects of one phase of one file."""

Report = Callable[["InstallProgress"], None]

LINE_INTERVAL_SECONDS = 10.0
"""The least time between two lines about one download, where there is no terminal."""

_WORDS = {
    "wait": "waiting for another install in",
    "download": "fetching",
    "verify": "verifying",
    "unpack": "unpacking",
    "load": "loading",
    "canary": "drawing a first picture",
    "measure": "measuring",
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


def say_installed(done: "Installed", as_json: bool) -> None:
    """How an installation ended: a line for people, or an object."""
    profile = done.profile
    if as_json:
        print_json(
            {
                "phase": "installed",
                "model_id": done.model_id,
                "folder": str(done.folder),
                "worker_id": done.worker_id,
                "canary_seconds": profile.canary_seconds,
                "already": done.already,
                "is_moved": done.is_moved,
                "device": profile.device_label,
                "dtype": profile.dtype,
                "offload": profile.offload,
                "at_once": profile.at_once,
                "turn_seconds": profile.turn_seconds,
                "weights_bytes": profile.weights_bytes,
                "peak_bytes": profile.peak_bytes,
            }
        )
        return
    how = "was installed already" if done.already else "is installed"
    tell(
        f"{plain(done.model_id)} {how}: worker {plain(done.worker_id)}, "
        f"a picture in {as_duration(profile.canary_seconds)}, {profile.at_once} at once "
        f"in {profile.dtype} on {plain(profile.device_label)}"
    )
    if not profile.turn_seconds:
        tell("it was not measured: usual values count until `sdq worker install` measures it")
    if done.is_moved:
        tell("it worked for another Redis before: all its models draw for this server from now on")


def _what(progress: "InstallProgress") -> str:
    words = _words_of(progress)
    if not words:
        return ""
    more = f"{progress.at_once} at once" if progress.phase == "measure" else plain(progress.file)
    return f"{words} {more}".rstrip()


def _words_of(progress: "InstallProgress") -> str:
    words = _WORDS.get(progress.phase, "")
    return f"{plain(progress.model_id)}: {words}" if words else ""


def _amount(progress: "InstallProgress") -> str:
    """``1.0 GiB of 4.0 GiB, 12.0 MiB/s, 4 min left``; as much of it as is known."""
    words = as_bytes(progress.done_bytes)
    if progress.total_bytes:
        words += f" of {as_bytes(progress.total_bytes)}"
    if progress.bytes_per_second is not None:
        words += f", {as_bytes(progress.bytes_per_second)}/s"
    if progress.seconds_left is not None:
        words += f", {as_duration(progress.seconds_left)} left"
    return words


def _json_reporter() -> Report:
    last: tuple[object, float] = (None, 0.0)

    def report(progress: "InstallProgress") -> None:
        nonlocal last
        now = time.monotonic()
        step = (progress.phase, progress.file, progress.at_once)
        is_whole = progress.done_bytes == progress.total_bytes
        if step == last[0] and now - last[1] < JSON_INTERVAL_SECONDS and not is_whole:
            return
        last = (step, now)
        print_json(
            {
                "phase": progress.phase,
                "model_id": progress.model_id,
                "file": progress.file,
                "done_bytes": progress.done_bytes,
                "total_bytes": progress.total_bytes,
                "at_once": progress.at_once,
                "bytes_per_second": progress.bytes_per_second,
                "seconds_left": progress.seconds_left,
            }
        )

    return report


def _line_reporter() -> Report:
    """Each file that is fetched, and the other phases once: a model may have dozens of files.

    Of a download that takes long, how far it is, every `LINE_INTERVAL_SECONDS`.
    """
    told: set[tuple[str, str]] = set()
    last = time.monotonic()

    def report(progress: "InstallProgress") -> None:
        nonlocal last
        what, now = _what(progress), time.monotonic()
        names_file = progress.phase in ("download", "wait")
        step = (progress.phase, what if names_file else "")
        if what and step not in told:
            told.add(step)
            tell(what if names_file else _words_of(progress))
            last = now
        elif progress.phase == "download" and now - last >= LINE_INTERVAL_SECONDS:
            tell(f"{what}: {_amount(progress)}")
            last = now

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
            fields["amount"] = _amount(progress)
        total = progress.total_bytes or None
        bars.update(line, total=total, completed=progress.done_bytes, **fields)

    with bars:
        yield report
