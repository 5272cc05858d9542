"""``sdq library``: the pictures that the server keeps."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import (
    as_bytes,
    as_duration,
    as_pictures,
    print_data,
    print_json,
    print_table,
    tell,
)
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.client.pictures import Picture
    from sdq.protocol.library_messages import Removed, StoredPicture

app = typer.Typer(
    help="The pictures that the server keeps.",
    epilog="Example:  sdq library find red circle",
)

KEY_CHARACTERS = 4
"""The least that a beginning of a key must have."""

_KEYS_AT_ONCE = 1_000

Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="At most so many.")
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key of a picture, or its beginning.")]
Keys = Annotated[
    list[str], typer.Argument(metavar="KEY...", help="Keys of pictures, or their beginnings.")
]
Words = Annotated[list[str], typer.Argument(metavar="WORD...", help="Words of the prompt.")]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="As for `sdq generate`.",
        show_default="{slug}-{key:8}.png",
    ),
]


@app.command("list")
def list_pictures(
    limit: Limit = 50, server: options.Server = None, as_json: options.Json = False
) -> None:
    """List the newest pictures.

    \b
    Example:
      sdq library list --limit 10
    """
    _show(ask(server, lambda client: client.find("", limit)), as_json)


@app.command()
def find(
    words: Words, limit: Limit = 50, server: options.Server = None, as_json: options.Json = False
) -> None:
    """List the newest pictures whose prompt holds all the words.

    \b
    Example:
      sdq library find red circle
    """
    _show(ask(server, lambda client: client.find(" ".join(words), limit)), as_json)


@app.command()
def rm(keys: Keys, server: options.Server = None, as_json: options.Json = False) -> None:
    """Take pictures out of the library. The files you saved stay.

    \b
    Example:
      sdq library rm 1a2b3c4d
    """
    wanted = [checked_key(key) for key in keys]

    async def remove(client: "Client") -> "list[Removed]":
        starts = range(0, len(wanted), _KEYS_AT_ONCE)
        return [await client.remove(wanted[start : start + _KEYS_AT_ONCE]) for start in starts]

    answers = ask(server, remove)
    pictures = sum(answer.pictures for answer in answers)
    freed_bytes = sum(answer.freed_bytes for answer in answers)
    if as_json:
        print_json({"pictures": pictures, "freed_bytes": freed_bytes})
    else:
        print_data(f"{as_pictures(pictures)} removed, {as_bytes(freed_bytes)} freed")


@app.command()
def fetch(
    key: Key,
    output: Output = None,
    force: options.Force = False,
    server: options.Server = None,
) -> None:
    """Save a picture of the library as a file.

    \b
    Example:
      sdq library fetch 1a2b3c4d -o out.png
    """
    from sdq.cli.files import Named, Outputs

    outputs = Outputs(output, force=force)
    wanted = checked_key(key)
    outputs.prepare()

    async def fetch_one(client: "Client") -> "Picture":
        return await client.fetch(wanted)

    picture = ask(server, fetch_one)
    path = outputs.write(Named(1, 0, picture.spec, picture.key), picture.png)
    if path is not None:
        print_data(str(path))


@app.command()
def stats(server: options.Server = None, as_json: options.Json = False) -> None:
    """Show how much the library holds and may hold.

    \b
    Example:
      sdq library stats
    """
    status = ask(server, lambda client: client.status())
    if as_json:
        names = ("pictures", "library_bytes", "library_max_bytes", "retention_days")
        print_json({name: getattr(status, name) for name in names})
        return
    share = status.library_bytes / status.library_max_bytes if status.library_max_bytes else 1.0
    print_data(as_pictures(status.pictures))
    print_data(
        f"{as_bytes(status.library_bytes)} of {as_bytes(status.library_max_bytes)} ({share:.0%})"
    )
    print_data(f"kept for {status.retention_days:g} days")


def checked_key(text: str) -> str:
    """The beginning of a key, or `UsageError`."""
    key = text.lower()
    if not KEY_CHARACTERS <= len(key) <= 64 or set(key) - set("0123456789abcdef"):
        raise UsageError(
            f"{text!r} is no key of a picture",
            hint=f"{KEY_CHARACTERS} to 64 hexadecimal digits; `sdq library list` shows them",
        )
    return key


def _show(pictures: "tuple[StoredPicture, ...]", as_json: bool) -> None:
    if as_json:
        import msgspec

        for picture in pictures:
            print_json(msgspec.to_builtins(picture))
        return
    if not pictures:
        if sys.stderr.isatty():
            tell("no pictures")
        return
    now = time.time()
    print_table(
        ("KEY", "AGE", "BYTES", "SIZE", "MODEL", "SEED", "PROMPT"),
        [_row(picture, now) for picture in pictures],
    )


def _row(picture: "StoredPicture", now: float) -> tuple[object, ...]:
    spec = picture.spec
    return (
        picture.key[:12],
        as_duration(max(0.0, now - picture.created_at)),
        as_bytes(picture.size_bytes),
        f"{spec.width}×{spec.height}",
        spec.model,
        spec.seed,
        spec.prompt,
    )
