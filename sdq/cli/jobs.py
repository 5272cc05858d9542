"""``sdq jobs``: what waits, what is drawn, what came of it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_duration, cut, held_up_by, plain, print_json, print_table, tell
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.protocol.job_messages import JobInfo, Jobs

TITLES = ("JOB", "STATE", "PROGRESS", "ETA", "AGE", "PROMPT")
_PROGRESS_COLUMNS = 40

Mine = Annotated[bool, typer.Option("--mine", help="Only what you asked for.")]
All = Annotated[bool, typer.Option("--all", help="Also what came to its end.")]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="At most so many.")
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Look each second until Ctrl-C. With --json: each change, as one object a line.",
    ),
]


def jobs(
    mine: Mine = False,
    ended: All = False,
    limit: Limit = 50,
    watch: Watch = False,
    server: options.Server = None,
    as_json: options.Json = False,
) -> int:
    """List the newest jobs.

    \b
    Examples:
      sdq jobs --mine
      sdq jobs --watch
    """
    if watch:
        return _watch(server, mine=mine, ended=ended, limit=limit, as_json=as_json)
    answer = ask(server, lambda client: client.jobs(mine=mine, ended=ended, limit=limit))
    if as_json:
        for job in answer.jobs:
            print_json(record_of(job))
        return 0
    if answer.jobs:
        print_table(TITLES, rows_of(answer.jobs))
    elif sys.stderr.isatty():
        tell("no jobs")
    if answer.more:
        tell(and_more(answer))
    return 0


def _watch(server: str | None, *, mine: bool, ended: bool, limit: int, as_json: bool) -> int:
    if not as_json and not sys.stdout.isatty():
        raise UsageError("--watch draws on a terminal", hint="add --json to read it from a program")
    client = options.settings(client__server=server).client
    from sdq.cli.watching import watch

    return options.run(watch(client, mine=mine, ended=ended, limit=limit, as_json=as_json))


def record_of(job: "JobInfo") -> dict[str, object]:
    """A job for ``--json``."""
    import msgspec

    values: dict[str, object] = msgspec.to_builtins(job)
    return values


def rows_of(answer: "Sequence[JobInfo]") -> list[tuple[object, ...]]:
    """Jobs as the columns of `TITLES`."""
    return [
        (
            job.job_id,
            job.state.value,
            _progress(job),
            "-" if job.eta_seconds is None else as_duration(job.eta_seconds),
            as_duration(job.created_seconds_ago),
            job.spec.prompt,
        )
        for job in answer
    ]


def and_more(answer: "Jobs") -> str:
    return f"and {answer.more} more: --limit shows more of them"


def _progress(job: "JobInfo") -> str:
    """How far it is, in a few words."""
    if job.state.value == "running":
        text = f"step {job.step} of {job.spec.num_inference_steps}"
        return f"{text} on {plain(job.worker_id)}" if job.worker_id else text
    if job.state.value == "succeeded":
        return "-" if job.draw_seconds is None else f"drawn in {as_duration(job.draw_seconds)}"
    reason = held_up_by(job.ahead, job.note) or job.error_message
    if not reason and job.ahead:
        return f"{job.ahead} ahead"
    return cut(plain(reason), _PROGRESS_COLUMNS) or "-"
