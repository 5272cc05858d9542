"""Options that several commands share."""

from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from sdq.cli import completion_words
from sdq.config import Settings
from sdq.errors import UsageError

_FILES = "Files and output"
_DRAWING = "How to draw"
_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}

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
Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Show pictures while they are drawn, below the progress, on a terminal in colour; "
        'elsewhere it does nothing. With --json, objects with "event": "preview" and a "jpeg" in '
        "base64 come before those of the pictures.",
        rich_help_panel=_FILES,
    ),
]
Show = Annotated[
    bool,
    typer.Option(
        "--show",
        help="Show each picture on the terminal when it is there (kitty, iTerm2, sixel or letters "
        "in colour, as the terminal understands; `client.pictures` says otherwise).",
        rich_help_panel=_FILES,
    ),
]
Bell = Annotated[
    bool,
    typer.Option("--bell", help="Ring the terminal's bell at the end.", rich_help_panel=_FILES),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID",
        help="The model. Default: the server's.",
        show_default=False,
        autocompletion=completion_words.models,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="ID",
        help="A model; give it again for more of them. Default: the server's.",
        show_default=False,
        autocompletion=completion_words.models,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where to draw: auto, cpu, cuda, cuda:1, mps, xpu.",
        show_default=False,
        rich_help_panel=_DRAWING,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="The precision: auto, float16, bfloat16, float32. auto: float16 on a GPU; on a CPU "
        "whichever install has found faster.",
        show_default=False,
        rich_help_panel=_DRAWING,
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the model: minutes once, then faster steps. Default: not.",
        show_default=False,
        rich_help_panel=_DRAWING,
    ),
]
Offload = Annotated[
    str | None,
    typer.Option(
        "--offload",
        metavar="HOW",
        help="For a GPU with little memory: auto, none, model (a part of the model at a time), "
        "sequential (a layer at a time, slow).",
        show_default=False,
        rich_help_panel=_DRAWING,
    ),
]
KeepAlive = Annotated[
    float | None,
    typer.Option(
        "--keep-alive",
        metavar="SECONDS",
        help="How long an idle model stays in memory; 0: always.",
        show_default=False,
        rich_help_panel=_DRAWING,
    ),
]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        help="Memory of the device for all models together, as 6GiB; 0: nearly all that is free.",
        show_default=False,
        rich_help_panel=_DRAWING,
    ),
]
MeasureSeconds = Annotated[
    float | None,
    typer.Option(
        "--measure",
        metavar="SECONDS",
        help="How long to measure at most, beyond the proof picture; 0: not at all. Default: 60.",
        show_default=False,
        rich_help_panel=_DRAWING,
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
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="HOST:PORT",
        help="Tell Prometheus there, at /metrics; a PORT alone is one of this machine only.",
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


def size_bytes(text: str | None, flag: str) -> int | None:
    """The bytes of ``6GiB``, ``6g``, ``512 MiB`` or ``1000``. Raises `UsageError`."""
    if text is None:
        return None
    number = text.strip().lower().rstrip("bgikmt ")
    unit = text.strip().lower()[len(number) :].strip()
    factor = _UNITS.get(unit, _UNITS.get(f"{unit}ib"))
    try:
        if factor is None or not 0 <= float(number) < float("inf"):
            raise ValueError
        return int(float(number) * factor)
    except ValueError:
        raise UsageError(
            f"{flag}: {text!r} is no size", hint="write it as 6GiB or 500MiB"
        ) from None


def run(command: Coroutine[Any, Any, int]) -> int:
    """Runs the coroutine of a command; see `sdq.cli.running.run_async`."""
    from sdq.cli.running import run_async  # asyncio, 18 ms

    return run_async(command)
