"""``sdq workers``, and draining one."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import completion_words, options
from sdq.cli.asking import ask
from sdq.cli.output import as_duration, as_pictures, plain, print_json, print_table, tell

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.protocol.job_messages import Draining
    from sdq.protocol.messages import WorkerStatus

POLL_SECONDS = 0.5

_TITLES = ("NAME", "HOST", "DEVICE", "STATE", "JOBS", "PER STEP", "SEEN", "MODELS")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The worker, as in `sdq workers`.",
        autocompletion=completion_words.workers,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Until it has ended.")]


def workers(server: options.Server = None, as_json: options.Json = False) -> None:
    """List the workers that are online.

    \b
    Example:
      sdq workers --server gpu-box:7433
    """
    online = ask(server, lambda client: client.status()).workers
    if as_json:
        import msgspec

        for worker in online:
            print_json(msgspec.to_builtins(worker))
    elif online:
        print_workers(online)
    elif sys.stderr.isatty():
        tell("none online: `sdq worker run` starts one")


def print_workers(online: "Sequence[WorkerStatus]", indent: str = "") -> None:
    """The table. There only if they say something: which models are in memory, when a worker has
    several, and the column for why one stops or is broken."""
    has_several = any(len(worker.models) > 1 for worker in online)
    has_notes = any(worker.note for worker in online)
    titles = [indent + _TITLES[0], *_TITLES[1:]]
    titles += ["IN MEMORY"] * has_several + ["NOTE"] * has_notes
    rows = []
    for worker in online:
        speed = worker.seconds_per_step
        row = [
            indent + worker.worker_id,
            worker.host,
            worker.device,
            worker.state,
            worker.active,
            "-" if speed is None else f"{speed * 1000:.0f} ms",
            f"{as_duration(worker.seen_seconds_ago)} ago",
            " ".join(worker.models),
        ]
        row += [" ".join(worker.loaded) or "-"] * has_several + [worker.note] * has_notes
        rows.append(row)
    print_table(titles, rows)


def drain(
    name: Name, wait: Wait = False, server: options.Server = None, as_json: options.Json = False
) -> None:
    """Have a worker finish what it draws, hand the rest back, and end.

    \b
    Example:
      sdq worker drain gpu-box --wait
    """

    async def tell_it(client: "Client") -> "Draining":
        before = await _seen(client, name) if wait else None
        answer = await client.drain(name)
        if not as_json:
            rest = (
                f"finishes what it has begun of {as_pictures(answer.active)} in hand, hands the "
                "rest back and "
            )
            tell(f"{plain(name)} was told: it {rest if answer.active else ''}ends")
        if wait:
            await _gone(client, name, before)
        return answer

    answer = ask(server, tell_it)
    if as_json:
        print_json({"worker_id": answer.worker_id, "active": answer.active, "has_ended": wait})
    elif wait:
        tell(f"{plain(name)} has ended")


async def _seen(client: "Client", name: str) -> "WorkerStatus | None":
    online = (await client.status()).workers
    return next((worker for worker in online if worker.worker_id == name), None)


async def _gone(client: "Client", name: str, before: "WorkerStatus | None") -> None:
    """Until the worker is offline, or was started again so quickly that nobody saw it away."""
    from asyncio import sleep

    was_stopping = before is not None and before.state == "stopping"
    while (worker := await _seen(client, name)) is not None:
        if was_stopping and worker.state not in ("stopping", "broken"):
            return
        was_stopping = was_stopping or worker.state == "stopping"
        await sleep(POLL_SECONDS)
