"""`sdq jobs --watch`: the table each second, or each change for a program."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from sdq.cli.jobs import TITLES, and_more, record_of, rows_of
from sdq.cli.output import cut, print_json, table_lines, tell
from sdq.cli.progress import FOUND, LOST
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.client.losses import may_pass
from sdq.config import ClientSettings
from sdq.errors import ConnectionFailed
from sdq.protocol.job_messages import JobInfo, Jobs
from sdq.protocol.states import FINAL_STATES

INTERVAL_SECONDS = 1.0
MAX_LIMIT = 1_000

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_ERASE_BELOW = "\x1b[J"
_ERASE_LINE = "\r\x1b[K"


class Screen:
    """A table that is drawn over the one before, on standard output."""

    def __init__(self) -> None:
        self._height = 0

    def show(self, answer: Jobs) -> None:
        lines = table_lines(TITLES, rows_of(answer.jobs)) if answer.jobs else ["no jobs"]
        size = os.get_terminal_size(sys.stdout.fileno())
        if hidden := max(0, len(lines) - max(size.lines - 2, 1)):
            lines = lines[: len(lines) - hidden]
            lines.append(f"and {answer.more + hidden} more: a higher window shows them")
        elif answer.more:
            lines.append(and_more(answer))
        self._draw([cut(line, size.columns) for line in lines])

    def lost(self) -> None:
        sys.stdout.write(LOST + "\n")
        sys.stdout.flush()
        self._height += 1

    def found(self) -> None:
        """The next table covers what was said."""

    def close(self) -> None:
        sys.stdout.write(_ERASE_LINE + _SHOW_CURSOR)  # the ^C that the terminal echoed
        sys.stdout.flush()

    def _draw(self, lines: Sequence[str]) -> None:
        back = f"\x1b[{self._height}F" if self._height else ""
        sys.stdout.write(_HIDE_CURSOR + back + _ERASE_BELOW + "\n".join(lines) + "\n")
        sys.stdout.flush()
        self._height = len(lines)


class Changes:
    """One object for each job that is new, or is not as it was at the last look."""

    def __init__(self) -> None:
        self._known: dict[str, JobInfo] = {}

    def show(self, answer: Jobs) -> None:
        now = {job.job_id: job for job in answer.jobs}
        for job in reversed(answer.jobs):  # oldest first
            before = self._known.get(job.job_id)
            if before is None or _without_clock(before) != _without_clock(job):
                print_json(record_of(job))
        self._known = now

    def lost(self) -> None:
        tell(LOST)

    def found(self) -> None:
        tell(FOUND)

    def close(self) -> None:
        """Nothing to tidy up."""


async def watch(
    settings: ClientSettings, *, mine: bool, ended: bool, limit: int, as_json: bool
) -> int:
    """Never returns by itself; cancel it. Looks for a lost server as `sdq generate` does."""
    view: Screen | Changes = Changes() if as_json else Screen()
    looker = _Looker(mine=mine, ended=ended, limit=limit)
    lost_at: float | None = None
    async with connect(settings.server, reconnect_seconds=0) as client:
        try:
            while True:
                try:
                    answer = await looker.look(client)
                except ConnectionFailed as error:
                    if not may_pass(error):
                        raise
                    if lost_at is None:
                        lost_at = time.monotonic()
                        view.lost()
                    if time.monotonic() - lost_at >= settings.reconnect_seconds:
                        raise
                else:
                    if lost_at is not None:
                        lost_at = None
                        view.found()
                    view.show(answer)
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            with suppress(OSError):  # the reader is gone
                view.close()


class _Looker:
    """What is to be shown: with ``ended`` all; else those that have not ended, and at one look
    those that ended since the last."""

    def __init__(self, *, mine: bool, ended: bool, limit: int) -> None:
        self._mine = mine
        self._ended = ended
        self._limit = limit
        self._waiting: set[str] = set()

    async def look(self, client: Client) -> Jobs:
        answer = await client.jobs(mine=self._mine, ended=self._ended, limit=self._limit)
        here = {job.job_id for job in answer.jobs if job.state not in FINAL_STATES}
        gone, self._waiting = self._waiting - here, here
        if self._ended or not gone:
            return answer
        latest = await client.jobs(mine=self._mine, ended=True, limit=MAX_LIMIT)
        over = {job.job_id for job in latest.jobs if job.state in FINAL_STATES} & gone
        shown = {job.job_id: job for job in answer.jobs}
        merged = [shown.pop(job.job_id, job) for job in latest.jobs if job.job_id in over | here]
        return msgspec.structs.replace(answer, jobs=(*merged, *shown.values()))


def _without_clock(job: JobInfo) -> JobInfo:
    """The job without what changes by itself as time goes by."""
    return msgspec.structs.replace(
        job, created_seconds_ago=0.0, changed_seconds_ago=0.0, eta_seconds=None
    )
