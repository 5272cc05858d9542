"""``sdq show``: a picture in the terminal, with its parameters."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.keys import checked_key
from sdq.cli.output import print_data, print_json
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.client.pictures import Picture

What = Annotated[
    str,
    typer.Argument(metavar="FILE|KEY", help="A picture file, or the key of a picture."),
]


def show(what: What, server: options.Server = None, as_json: options.Json = False) -> None:
    """Show a picture in the terminal, and how it was drawn.

    The picture is seen where the terminal can show it; its parameters go to standard output.

    \b
    Examples:
      sdq show out.png
      sdq show 1a2b3c4d
    """
    from sdq.cli.describing import description_of, lines_of, of_provenance, read_file

    path = Path(what)
    if path.is_file():
        data = read_file(path)
        said = description_of(path)
    else:
        data = _fetch(what, server)
        from sdq.metadata import read

        found = read(data)
        said = {} if found is None else of_provenance(found)
    if as_json:
        print_json(said)
        return
    _paint(data)
    for line in lines_of(said):
        print_data(line)


def _fetch(what: str, server: str | None) -> bytes:
    try:
        key = checked_key(what)
    except UsageError as error:
        raise UsageError(
            f"{what[:200]!r} is no file, and no key of a picture", hint=error.hint
        ) from None

    async def fetch(client: "Client") -> "Picture":
        return await client.fetch(key)

    return ask(server, fetch).png


def _paint(data: bytes) -> None:
    """Only where somebody looks: not when the parameters go into a pipe."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        from sdq.cli.pictures.show import show as paint

        paint(data, setting=options.settings().client.pictures)
