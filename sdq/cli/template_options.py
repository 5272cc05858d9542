"""The flags about templates: `sdq generate`, `submit`, `batch` and `plan` share them."""

from typing import Annotated

import typer

TEMPLATES = "Templates"

Expand = Annotated[
    bool,
    typer.Option(
        "--expand",
        help="Prompts are templates: {red|green} {circle|square} draws all four.",
        rich_help_panel=TEMPLATES,
    ),
]
Random = Annotated[
    int | None,
    typer.Option(
        "--random",
        metavar="N",
        min=1,
        help="N of a template's prompts instead of all, chosen by --seed (0 without): the same "
        "ones each time.",
        show_default=False,
        rich_help_panel=TEMPLATES,
    ),
]
Most = Annotated[
    int | None,
    typer.Option(
        "--max",
        metavar="N",
        min=1,
        help="A template that gives more prompts is refused. Default: 1000.",
        show_default=False,
        rich_help_panel=TEMPLATES,
    ),
]
WildcardsFolder = Annotated[
    str | None,
    typer.Option(
        "--wildcards",
        metavar="FOLDER",
        help="Where the files of wildcards are: __colors__ is one line of colors.txt.",
        show_default=False,
        rich_help_panel=TEMPLATES,
    ),
]
