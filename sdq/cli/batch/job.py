"""One call of `sdq batch` or `sdq plan`, once its flags are understood."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from sdq.cli.batch.failures import Failures
from sdq.cli.batch.formats import Reader, format_of
from sdq.cli.batch.lines import Lines, Understanding, counted, lines_of_file
from sdq.cli.batch.plan import Plan
from sdq.cli.batch.report import Report
from sdq.cli.batch.running import BatchOrder, Running
from sdq.cli.batch.source import STDIN, is_seekable, opened
from sdq.cli.batch.table import counts_in_words
from sdq.cli.batch.targets import Targets
from sdq.cli.deadline import deadline
from sdq.cli.output import Sink
from sdq.cli.retrying import connected
from sdq.config import ClientSettings
from sdq.errors import SdqError
from sdq.protocol.vocabulary import CachePolicy

_HINT = "allow more with --timeout; the same command again does the rest"
_MAX_COUNTED_BYTES = 32 * 1024 * 1024
"""A larger file is not gone through twice, only to know how many pictures are left."""


class HowToRun(msgspec.Struct, frozen=True):
    """How lines are drawn, wherever they come from."""

    order: BatchOrder
    timeout_seconds: float | None
    settings: ClientSettings


class BatchJob(msgspec.Struct, frozen=True):
    """``path``: the file, or ``-``."""

    path: str
    format: str | None
    how: Understanding
    order: BatchOrder
    output: str | None
    force: bool
    failed: str | None
    timeout_seconds: float | None
    settings: ClientSettings

    @property
    def how_to_run(self) -> HowToRun:
        return HowToRun(self.order, self.timeout_seconds, self.settings)

    def reader(self) -> Reader:
        return Reader(format_of(self.path, self.format))

    def targets(self) -> Targets:
        """Raises `UsageError` for an ``-o`` that cannot work."""
        keeps = self.order.cache in (CachePolicy.PREFER, CachePolicy.ONLY)
        return Targets(self.output, force=self.force, keeps=keeps)


async def run_batch(job: BatchJob, sink: Sink) -> int:
    """Draws all lines; the exit code: 1 when any failed. Raises what ends all before its time."""
    targets, reader = job.targets(), job.reader()
    with opened(job.path) as fd:
        if job.path == STDIN and sys.stdin.isatty():
            sink.say("one line of the batch a line, Ctrl-D ends")
        total = await _total(job, fd)
        report = Report(sink, Failures(job.failed, reader, job.path), total=total)
        await run_lines(lines_of_file(reader, fd, job.how), job.how_to_run, targets, report, sink)
        if hint := job.how.expansion.hint:
            sink.say(hint)
        return report.end()


async def run_lines(
    lines: Lines, how: HowToRun, targets: Targets, report: Report, sink: Sink
) -> None:
    """Connects and draws. What ends it before its time is raised, once the report is ended; else
    ending it is left to the caller."""
    try:
        async with (
            deadline(how.timeout_seconds, left=lambda: counts_in_words(report.counts), hint=_HINT),
            AsyncExitStack() as stack,
        ):
            client = await connected(stack, how.settings, how.order.retry, sink)
            await Running(client, how.order, targets, report).run(lines)
    except (asyncio.CancelledError, SdqError):
        report.end(was_interrupted=True)
        raise
    finally:
        report.table.close()  # the cursor is shown again, whatever happened


async def run_plan(job: BatchJob, sink: Sink) -> int:
    """Says what would become of all lines; the exit code: 1 when any could not be drawn."""
    targets, reader = job.targets(), job.reader()
    with opened(job.path) as fd:
        async with (
            deadline(job.timeout_seconds, left=lambda: "the plan is not whole", hint=_HINT),
            AsyncExitStack() as stack,
        ):
            client = await connected(stack, job.settings, job.order.retry, sink)
            plan = Plan(client, targets, sink, job.order.cache)
            await plan.follow(lines_of_file(reader, fd, job.how))
        if hint := job.how.expansion.hint:
            sink.say(hint)
        return plan.end()


async def _total(job: BatchJob, fd: int) -> int | None:
    """How many pictures there are, for people who watch; ``None``: they are not counted."""
    if not sys.stderr.isatty() or not is_seekable(job.path):
        return None
    if Path(job.path).stat().st_size > _MAX_COUNTED_BYTES:
        return None
    total = await counted(job.reader(), fd, job.how)
    os.lseek(fd, 0, os.SEEK_SET)
    return total
