"""Logs of children: bounded in size, fresh at every start, their ends shown to people."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from sdq.stack.console import printable

MAX_LOG_BYTES = 5 * 1024 * 1024
"""Beyond this a log becomes ``NAME.1``, in place of the former one, and begins anew."""

CHECK_INTERVAL_SECONDS = 5.0

_TAIL_LINES = 8
_TAIL_BYTES = 8 * 1024
_LINE_CHARACTERS = 300


def fresh_log(log: Path) -> None:
    """Begins a log; the one of the last run stays as ``NAME.1``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        log.replace(_former(log))
    log.touch(mode=0o600)


async def bound_logs(
    logs: Callable[[], Iterable[Path]], *, interval_seconds: float = CHECK_INTERVAL_SECONDS
) -> None:
    """Keeps logs bounded while children append to them. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(interval_seconds)
        for log in logs():
            with contextlib.suppress(OSError):  # a full disk: the next turn tries again
                if log.stat().st_size > MAX_LOG_BYTES:
                    await asyncio.to_thread(_begin_anew, log)


def _begin_anew(log: Path) -> None:
    """Copies and empties, because the child goes on writing into the same open file."""
    shutil.copyfile(log, _former(log))
    with log.open("r+b") as file:
        file.truncate(0)


def _former(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def last_lines(log: Path, start_bytes: int = 0) -> list[str]:
    """The last lines that were written behind ``start_bytes``, safe to show in a terminal."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            start = start_bytes if start_bytes <= size else 0  # it began anew in between
            file.seek(max(start, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    return [printable(line)[:_LINE_CHARACTERS] for line in lines[-_TAIL_LINES:]]
