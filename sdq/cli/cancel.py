"""``sdq cancel``."""

from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import completion_words, options
from sdq.cli.asking import ask
from sdq.cli.job_ids import read_job_ids
from sdq.cli.output import print_data, print_json
from sdq.errors import UnknownJob, UsageError

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.protocol.job_messages import JobsCancelled

JobIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB...]",
        help="Job ids; - reads standard input.",
        show_default=False,
        autocompletion=completion_words.jobs_under_way,
    ),
]
AllMine = Annotated[
    bool, typer.Option("--all-mine", help="All that you asked for and that have not ended.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]

_JOBS_AT_ONCE = 1_000
_NAMED = 5


def cancel(
    jobs: JobIds = None,
    all_mine: AllMine = False,
    server: options.Server = None,
    as_json: options.Json = False,
    quiet: Quiet = False,
) -> None:
    """Take back jobs. What somebody else wants too goes on for them.

    \b
    Examples:
      sdq cancel 01m84kh4qevc8yvybbef9jnb4w
      sdq cancel --all-mine
    """
    if all_mine == bool(jobs):
        raise UsageError("name jobs, or give --all-mine", hint="`sdq jobs --mine` shows yours")
    job_ids = read_job_ids(jobs) if jobs else []

    async def take_back(client: "Client") -> "list[JobsCancelled]":
        if all_mine:
            return [await client.cancel_jobs(all_mine=True)]
        starts = range(0, len(job_ids), _JOBS_AT_ONCE)
        chunks = [job_ids[start : start + _JOBS_AT_ONCE] for start in starts]
        return [await client.cancel_jobs(chunk) for chunk in chunks]

    _show(ask(server, take_back), as_json, quiet=quiet)


def _show(answers: "list[JobsCancelled]", as_json: bool, *, quiet: bool) -> None:
    names = ("cancelled", "kept", "ended", "foreign")
    counts = {name: sum(getattr(answer, name) for answer in answers) for name in names}
    unknown = [job_id for answer in answers for job_id in answer.unknown]
    if as_json:
        print_json({**counts, "unknown": unknown})
    elif not quiet and (any(counts.values()) or not unknown):
        print_data(_in_words(**counts))
    if unknown:
        named = ", ".join(unknown[:_NAMED]) + (" …" if len(unknown) > _NAMED else "")
        raise UnknownJob(
            f"no such job: {named}", hint="`sdq jobs --mine --all` shows those that are known"
        )


def _in_words(cancelled: int, kept: int, ended: int, foreign: int) -> str:
    parts = [f"{cancelled} cancelled"]
    if kept:
        parts.append(f"{kept} {'goes' if kept == 1 else 'go'} on for somebody else")
    if ended:
        parts.append(f"{ended} had ended already")
    if foreign:
        parts.append(f"{foreign} {'is' if foreign == 1 else 'are'} only somebody else's")
    return ", ".join(parts)
