"""The flags that `sdq batch`, `sdq plan` and `sdq sweep` share."""

from typing import Annotated, Literal

import typer

BATCH = "The batch"

MAX_JOBS = 900
"""Lines under way: a connection takes a thousand requests, and some are for questions."""

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="Lines to draw: .txt, .csv, .jsonl or .yaml; - is standard input."
    ),
]
Format = Annotated[
    Literal["text", "csv", "jsonl", "yaml"] | None,
    typer.Option(
        "--format",
        help="How the file is written. Default: by its ending; text for standard input.",
        show_default=False,
        rich_help_panel=BATCH,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATTERN",
        help="A folder/, or a pattern of {line} {n} {index} {seed} {slug} {key} {model}, ending in "
        ".png, .jpg or .webp. A line's own output goes before it.",
        show_default="{slug}-{key:8}.png",
        rich_help_panel=BATCH,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "-j",
        "--jobs",
        metavar="N",
        min=1,
        max=MAX_JOBS,
        help="Lines under way at once.",
        rich_help_panel=BATCH,
    ),
]
Failed = Annotated[
    str | None,
    typer.Option(
        "--failed",
        metavar="FILE",
        help="Write the lines that failed there, as they stand in the input.",
        show_default=False,
        rich_help_panel=BATCH,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what would be drawn, as `sdq plan` does.", rich_help_panel=BATCH
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        help="Replace files that hold something else; those that hold the right picture stay.",
        rich_help_panel=BATCH,
    ),
]
