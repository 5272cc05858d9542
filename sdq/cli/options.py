"""Options that several commands share."""

from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from sdq.config import Settings

_FILES = "Files and output"

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help="The server to ask. Default: SDQ_SERVER, the configuration, or this machine.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="A .png, .jpg or .webp file; a folder/; a pattern of {n} {index} {seed} {slug} "
        "{key} {model}; or - for standard output. Several pictures in one FILE become "
        "FILE-1, FILE-2 …",
        show_default="{slug}-{key:8}.png",
        rich_help_panel=_FILES,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q", "--quiet", help="Nothing on standard error but errors.", rich_help_panel=_FILES
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="ID", help="The model. Default: the server's.", show_default=False
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where to draw: auto, cpu, cuda, cuda:1, mps.",
        show_default=False,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency", metavar="N", min=1, help="Pictures in hand at once.", show_default=False
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where to listen; 0.0.0.0 is everywhere.",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option("--port", metavar="N", max=65_535, help="0 takes a free one.", show_default=False),
]
Redis = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="A Redis that runs elsewhere. Default: one of our own.",
        show_default=False,
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="Where the library and the jobs are kept.",
        show_default=False,
    ),
]


def settings(**flags: object) -> Settings:
    """All settings, with these flags put in."""
    from sdq.config import load

    return load().with_flags(**flags)


def run(command: Coroutine[Any, Any, int]) -> int:
    """Runs the coroutine of a command; see `sdq.cli.running.run_async`."""
    from sdq.cli.running import run_async  # asyncio, 18 ms

    return run_async(command)
