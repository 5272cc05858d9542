"""``sdq status``: the server, its workers and its queue."""

from typing import TYPE_CHECKING

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import (
    as_bytes,
    as_duration,
    as_pictures,
    plain,
    print_data,
    print_json,
)
from sdq.cli.workers import print_workers

if TYPE_CHECKING:
    from sdq.protocol.messages import Status


def status(server: options.Server = None, as_json: options.Json = False) -> None:
    """Show the server, its workers and its queue.

    \b
    Example:
      sdq status --server gpu-box:7433
    """
    show_status(server, as_json)


def show_status(server: str | None, as_json: bool) -> None:
    """Asks and prints. Raises what `Client.status` raises."""
    answer = ask(server, lambda client: client.status())
    if as_json:
        import msgspec

        plain_values = msgspec.to_builtins(answer)
        print_json({k: v for k, v in plain_values.items() if k not in ("type", "request_id")})
        return
    _print(answer)


def _print(answer: "Status") -> None:
    waiting = answer.queued + answer.dispatched
    days = f"{answer.retention_days:g} days"
    rows = {
        "server": f"{plain(answer.server)}, up for {as_duration(answer.uptime_seconds)}",
        "redis": plain(answer.redis),
        "queue": f"{answer.running} being drawn, {waiting} waiting",
        "library": f"{as_pictures(answer.pictures)}, {as_bytes(answer.library_bytes)} of "
        f"{as_bytes(answer.library_max_bytes)}, kept for {days}",
        "workers": "" if answer.workers else "none online: `sdq worker run` starts one",
    }
    for name, text in rows.items():
        print_data(f"{name + ':':9}{text}".rstrip())
    if answer.workers:
        print_workers(answer.workers, indent="  ")
