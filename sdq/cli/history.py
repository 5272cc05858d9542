"""``sdq history``: what a person asked for."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_duration, print_json, print_table, tell

if TYPE_CHECKING:
    from sdq.protocol.job_messages import JobInfo

_TITLES = ("AGE", "STATE", "KEY", "MODEL", "SIZE", "SEED", "PROMPT")
_KEY_COLUMNS = 12

Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="At most so many.")
]


def history(limit: Limit = 50, server: options.Server = None, as_json: options.Json = False) -> int:
    """List what you asked for, the newest first, and what came of it.

    A server remembers what it had to draw for a week; pictures that were in its library already
    are not among them. `sdq fetch KEY` brings those that succeeded.

    \b
    Examples:
      sdq history
      sdq history --json | jq -r 'select(.state == "failed") | .spec.prompt'
    """
    answer = ask(server, lambda client: client.jobs(mine=True, ended=True, limit=limit))
    if as_json:
        from sdq.cli.jobs import record_of

        for job in answer.jobs:
            print_json(record_of(job))
        return 0
    if answer.jobs:
        print_table(_TITLES, [_row(job) for job in answer.jobs])
    elif sys.stderr.isatty():
        tell("nothing yet")
    if answer.more:
        tell(f"and {answer.more} more: --limit shows more of them")
    return 0


def _row(job: "JobInfo") -> tuple[object, ...]:
    spec = job.spec
    return (
        as_duration(job.created_seconds_ago),
        job.state.value,
        # A key is of use where there is a picture.
        job.key[:_KEY_COLUMNS] if job.state.value == "succeeded" else "-",
        spec.model,
        f"{spec.width}×{spec.height}",
        spec.seed,
        spec.prompt if not job.error_message else f"{spec.prompt} ({job.error_message})",
    )
