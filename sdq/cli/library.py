"""``sdq library``: the pictures that the server keeps."""

from typing import TYPE_CHECKING

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.fetch import fetch
from sdq.cli.find import Limit, Printer, find, run_find
from sdq.cli.keys import KEYS_AT_ONCE, Keys, checked_keys
from sdq.cli.output import as_bytes, as_pictures, print_data, print_json, tell
from sdq.cli.pin import pin, unpin

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.protocol.library_messages import Removed

app = typer.Typer(
    help="The pictures that the server keeps.",
    epilog="Example:  sdq library stats",
)
app.command()(find)
app.command()(fetch)
app.command()(pin)
app.command()(unpin)


@app.command("list")
def list_pictures(
    limit: Limit = 50, server: options.Server = None, as_json: options.Json = False
) -> None:
    """List the newest pictures.

    \b
    Example:
      sdq library list --limit 10
    """
    run_find(server, "", {}, limit, Printer(as_json=as_json))


@app.command()
def rm(keys: Keys, server: options.Server = None, as_json: options.Json = False) -> None:
    """Take pictures out of the library, pinned ones too. The files you saved stay.

    \b
    Example:
      sdq library rm 1a2b3c4d
    """
    wanted = checked_keys(keys)

    async def remove(client: "Client") -> "list[Removed]":
        starts = range(0, len(wanted), KEYS_AT_ONCE)
        return [await client.remove(wanted[start : start + KEYS_AT_ONCE]) for start in starts]

    answers = ask(server, remove)
    pictures = sum(answer.pictures for answer in answers)
    freed_bytes = sum(answer.freed_bytes for answer in answers)
    if as_json:
        print_json({"pictures": pictures, "freed_bytes": freed_bytes})
    else:
        print_data(f"{as_pictures(pictures)} removed, {as_bytes(freed_bytes)} freed")


@app.command()
def stats(server: options.Server = None, as_json: options.Json = False) -> None:
    """Show how much the library holds and may hold.

    \b
    Example:
      sdq library stats
    """
    status = ask(server, lambda client: client.status())
    if as_json:
        names = (
            *("pictures", "library_bytes", "library_max_bytes", "retention_days"),
            *("pinned_pictures", "pinned_bytes"),
        )
        print_json({name: getattr(status, name) for name in names})
        return
    share = status.library_bytes / status.library_max_bytes if status.library_max_bytes else 1.0
    print_data(as_pictures(status.pictures))
    print_data(
        f"{as_bytes(status.library_bytes)} of {as_bytes(status.library_max_bytes)} ({share:.0%})"
    )
    print_data(f"kept for {status.retention_days:g} days")
    if status.pinned_pictures:
        pinned = f"{as_pictures(status.pinned_pictures)}, {as_bytes(status.pinned_bytes)}"
        print_data(f"{pinned}, pinned: kept for good")
    if status.library_bytes > status.library_max_bytes and status.pinned_pictures:
        tell("more than it should hold: what is pinned stays; `sdq unpin` lets it go")
