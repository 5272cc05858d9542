"""What is said of each picture of a batch, and at the end of all."""

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from sdq.cli.batch.columns import BadLine, BatchLine
from sdq.cli.batch.failures import Failures
from sdq.cli.batch.table import Counts, counts_in_words, table_for
from sdq.cli.batch.targets import Target
from sdq.cli.output import Sink, print_data, print_json
from sdq.errors import SdqError
from sdq.protocol.job_messages import PlannedPicture
from sdq.protocol.messages import Origin

UP_TO_DATE = "up_to_date"
OnPicture = Callable[[BatchLine, PlannedPicture, Path | None, bytes | None], None]
"""Called for each picture that there is: its file if it has one, its bytes if they just came."""


class Report:
    """One for a batch."""

    def __init__(
        self,
        sink: Sink,
        failures: Failures,
        *,
        total: int | None = None,
        on_picture: OnPicture | None = None,
        says_paths: bool = True,
    ) -> None:
        self.counts = Counts(total=total)
        self.failures = failures
        self._sink = sink
        self._on_picture = on_picture
        # On a terminal the table tells; a thousand paths would run through it.
        self._says_paths = says_paths and not sys.stdout.isatty()
        self.table = table_for(sink, self.counts)

    def up_to_date(self, line: BatchLine, target: Target) -> None:
        """A file that holds its picture already."""
        self.counts.up_to_date += 1
        self._picture(line, target, UP_TO_DATE, 0.0, None)

    def came(
        self, line: BatchLine, target: Target, origin: Origin, seconds: float, png: bytes
    ) -> None:
        """A picture that was asked for and is in its place."""
        if origin is Origin.HIT:
            self.counts.hits += 1
        else:
            self.counts.made += 1
            self.table.drawn()
        self._picture(line, target, origin.value, seconds, png)

    def failed(self, line: BatchLine | BadLine, error: SdqError, pictures: int) -> None:
        """A line, or some of its pictures, with the first reason."""
        self.counts.failed += pictures
        self.failures.add(line.number, line.raw, error)
        if self._sink.as_json:
            why = {"code": error.code, "message": error.message, "hint": error.hint}
            self._record({"event": "failed", "line": line.number, "error": why})

    def _picture(
        self, line: BatchLine, target: Target, status: str, seconds: float, png: bytes | None
    ) -> None:
        path = target.path
        if self._on_picture is not None:
            self._on_picture(line, target.picture, path, png)
        if self._sink.as_json:
            self._record(
                {
                    "event": "picture",
                    "line": line.number,
                    "index": target.picture.index,
                    "status": status,
                    "path": None if path is None else str(path),
                    "key": target.picture.key,
                    "seed": target.picture.spec.seed,
                    "seconds": round(seconds, 3),
                    "spec": msgspec.to_builtins(target.picture.spec),
                }
            )
        elif path is not None and self._says_paths:
            print_data(str(path))

    def _record(self, value: object) -> None:
        if sys.stdout.isatty():
            self._sink.record(value)
        else:
            print_json(value)  # the table stays where it is

    def end(self, *, was_interrupted: bool = False) -> int:
        """Says how it went; the exit code. Call it once, also after an error."""
        self.table.close()
        self.counts.running = 0
        self.failures.close(was_interrupted=was_interrupted)
        if not self._sink.quiet:
            self.failures.tell(self._sink)
        words = counts_in_words(self.counts)
        if was_interrupted:
            words = f"interrupted; {words}; the same command again does the rest"
        if self.counts.ended or not was_interrupted:
            self._sink.say(words)
        if self._sink.as_json:
            counts = msgspec.to_builtins(self.counts)
            del counts["running"], counts["total"]
            ended = {"event": "end", "interrupted": was_interrupted} | counts
            self._record(ended | {"failed_lines": self.failures.lines})
        return 1 if self.failures.lines else 0
