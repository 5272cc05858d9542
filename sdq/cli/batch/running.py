"""Draws the lines of a batch: some at a time, each picture written as soon as it comes."""

import asyncio
import errno
import time
from contextlib import aclosing

import msgspec

from sdq.cli.batch.columns import BadLine, BatchLine
from sdq.cli.batch.lines import Lines
from sdq.cli.batch.planning import Patience, PlannedLine, planned
from sdq.cli.batch.report import Report
from sdq.cli.batch.targets import Standing, Target, Targets
from sdq.cli.retrying import passes, pause, runs_of
from sdq.cli.running import first_of
from sdq.client.client import Client
from sdq.client.news import Reconnected, Reconnecting
from sdq.errors import ConnectionFailed, OutputError, SdqError, from_code
from sdq.protocol.messages import Accepted, Failure, Picture, Progress
from sdq.protocol.vocabulary import CachePolicy, Priority

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BatchOrder(msgspec.Struct, frozen=True):
    """How lines are drawn."""

    jobs: int = 8
    cache: CachePolicy = CachePolicy.PREFER
    priority: Priority = Priority.NORMAL
    wait: bool = True
    retry: int = 0
    patience_seconds: float = 0.0  # how long a server that was lost is looked for


class _Work(msgspec.Struct):
    """A line whose pictures are still to come. ``failed``: the first reason why one does not."""

    ticket: int
    line: BatchLine
    left: dict[int, Target]  # by index
    begun: float = 0.0
    failed: SdqError | None = None

    def __post_init__(self) -> None:
        self.begun = time.monotonic()

    @property
    def label(self) -> str:
        return f"{self.line.about}  {self.line.draft.prompt}"


class Running:
    """One batch over an open connection."""

    def __init__(self, client: Client, order: BatchOrder, targets: Targets, report: Report) -> None:
        self._client = client
        self._order = order
        self._targets = targets
        self._report = report
        self._places = asyncio.Semaphore(order.jobs)
        self._tickets = 0
        table = report.table
        self._patience = Patience(order.patience_seconds, lost=table.lost, found=table.found)

    async def run(self, lines: Lines) -> None:
        """Until the last line came to its end. What fails in one line stays there.

        Raises what ends all: `ConnectionFailed`, a full disk as `OutputError`, a file that cannot
        be read on. Cancelling it cancels the requests under way.
        """
        try:
            async with (
                asyncio.TaskGroup() as group,
                aclosing(planned(self._client, lines, self._patience)) as all_planned,
            ):
                async for line in all_planned:
                    if isinstance(line, BadLine):
                        self._report.failed(line, line.error, line.count)
                    elif (work := self._work_of(line)) is not None:
                        await self._places.acquire()
                        task = group.create_task(self._draw(work))
                        task.add_done_callback(lambda _: self._places.release())
                    else:
                        await asyncio.sleep(0)  # for others' turns; looking took a moment
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None

    def _work_of(self, planned_line: PlannedLine) -> _Work | None:
        """What is to be drawn of a line; ``None``: nothing."""
        line = planned_line.line
        try:
            targets = list(self._targets.of(planned_line))
        except SdqError as error:
            self._report.failed(line, error, line.count)
            return None
        for target in targets:
            if target.standing is Standing.UP_TO_DATE:
                self._report.up_to_date(line, target)
        taken = [target for target in targets if target.problem is not None]
        if taken and taken[0].problem is not None:
            self._report.failed(line, taken[0].problem, len(taken))
        left = {
            target.picture.index: target
            for target in targets
            if target.standing is Standing.MISSING
        }
        self._tickets += 1
        return _Work(self._tickets, line, left) if left else None

    async def _draw(self, work: _Work) -> None:
        """All that is missing of a line, asked for again as often as is allowed."""
        counts, table = self._report.counts, self._report.table
        counts.running += 1
        table.show(work.ticket, work.label, None)
        attempt = 0
        try:
            while await self._ask_for_all(work) and attempt < self._order.retry:
                attempt += 1
                await pause(attempt)
            if work.left:
                error = work.failed or SdqError("the server ended the request without a picture")
                self._report.failed(work.line, error, len(work.left))
        finally:
            counts.running -= 1
            table.gone(work.ticket)

    async def _ask_for_all(self, work: _Work) -> bool:
        """Asks once for what is left; whether something is left that may come another time."""
        errors: list[SdqError] = []
        for first, count in runs_of(work.left):
            try:
                errors += await self._ask(work, first, count)
            except ConnectionFailed:
                raise
            except OutputError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
                    raise
                errors.append(error)
            except SdqError as error:
                errors.append(error)
        work.failed = errors[0] if errors else None
        return bool(work.left) and any(passes(error) for error in errors)

    async def _ask(self, work: _Work, first: int, count: int) -> list[SdqError]:
        """A run of pictures from request to files; what the server could not draw."""
        order, table = self._order, self._report.table
        errors = []
        news = self._client.watch(
            work.line.draft,
            count=count,
            first_index=first,
            cache=order.cache,
            wait=order.wait,
            priority=order.priority,
        )
        async with aclosing(news):
            async for item in news:
                match item:
                    case Picture():
                        self._take(work, item)
                    case Failure():
                        errors.append(from_code(item.code, item.message, item.hint))
                    case Progress():
                        table.show(work.ticket, work.label, item)
                    case Reconnecting():
                        table.lost()
                    case Reconnected():
                        table.found()
                    case Accepted():
                        pass
        return errors

    def _take(self, work: _Work, picture: Picture) -> None:
        target = work.left[picture.index]
        if picture.key != target.picture.key:
            raise OutputError(
                "the server's catalog has changed the model meanwhile",
                hint="the same command again draws what is missing",
            )
        self._targets.write(target, picture.image)
        del work.left[picture.index]
        seconds = time.monotonic() - work.begun
        self._report.came(work.line, target, picture.cache, seconds, picture.image)
