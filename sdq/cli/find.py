"""``sdq find``: what there is in the library."""

import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import filters as which
from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_bytes, as_duration, print_data, print_json, table_lines, tell

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.client.searching import Filters
    from sdq.protocol.library_messages import StoredPicture

KEY_COLUMNS = 12
_PAGE_PICTURES = 500
_TITLES = ("KEY", "AGE", "BYTES", "SIZE", "MODEL", "SEED", "PROMPT")

Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")]
All = Annotated[bool, typer.Option("--all", help="All of them, however many.")]
Before = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER",
        min=0,
        help="Only older ones than the picture of this number, as --json tells it: the next page.",
        show_default=False,
    ),
]
KeysOnly = Annotated[
    bool, typer.Option("--keys", help="Print whole keys only, one a line, as `sdq fetch -` reads.")
]


def find(
    words: which.Words = None,
    negative: which.Negative = "",
    model: which.Model = None,
    size: which.Size = None,
    since: which.Since = None,
    until: which.Until = None,
    lora: which.Lora = None,
    seed: which.Seed = None,
    pinned: which.Pinned = False,
    limit: Limit = 50,
    every: All = False,
    before: Before = None,
    keys: KeysOnly = False,
    server: options.Server = None,
    as_json: options.Json = False,
) -> None:
    """Find pictures in the library, the newest first.

    \b
    Examples:
      sdq find red circle --since 3d
      sdq find '"blue background"' 'circ*' --model shapes --size 64x64
      sdq find --pinned --all --keys | sdq fetch - -o pictures/
    """
    wanted = which.filters_of(
        negative=negative, model=model, size=size, since=since, until=until,
        lora=lora, seed=seed, pinned=pinned, before=before,
    )  # fmt: skip
    printer = Printer(as_json=as_json, keys_only=keys)
    run_find(server, " ".join(words or ()), wanted, None if every else limit, printer)


def run_find(
    server: str | None, words: str, filters: "Filters", limit: int | None, printer: "Printer"
) -> None:
    """Prints what is found, a page at a time."""

    async def go_through(client: "Client") -> None:
        page: list[StoredPicture] = []
        async with aclosing(client.find_each(words, limit, **filters)) as pictures:
            async for picture in pictures:
                page.append(picture)
                if len(page) == _PAGE_PICTURES:
                    printer.print(page)
                    page.clear()
        printer.print(page)

    ask(server, go_through)
    if not printer.pictures and sys.stderr.isatty():
        tell("no pictures")


class Printer:
    """Pictures of the library as a table, as JSON, or as their keys alone."""

    def __init__(self, *, as_json: bool = False, keys_only: bool = False) -> None:
        self.pictures = 0
        self._as_json = as_json
        self._keys_only = keys_only

    def print(self, pictures: "Sequence[StoredPicture]") -> None:
        """Prints some more of them."""
        if self._as_json:
            import msgspec

            for picture in pictures:
                print_json(msgspec.to_builtins(picture))
        elif self._keys_only:
            for picture in pictures:
                print_data(picture.key)
        elif pictures:
            now = time.time()
            lines = table_lines(_TITLES, [row_of(picture, now) for picture in pictures])
            for line in lines[1 if self.pictures else 0 :]:
                print_data(line)
        self.pictures += len(pictures)


def row_of(picture: "StoredPicture", now: float) -> tuple[object, ...]:
    """A picture as the columns of the table."""
    spec = picture.spec
    return (
        picture.key[:KEY_COLUMNS] + ("*" if picture.pinned else ""),
        as_duration(max(0.0, now - picture.created_at)),
        as_bytes(picture.size_bytes),
        f"{spec.width}×{spec.height}",
        spec.model,
        spec.seed,
        spec.prompt,
    )
