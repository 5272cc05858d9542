"""The flags about templates; commands take them by `sdq.cli.taking`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdq.cli.expansion import Expansion

Expanding = Callable[[int | None], "Expansion"]
"""How prompts are expanded, once the seed of their pictures is known. Raises `UsageError` for
flags that need ``--expand`` without it."""

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


def expanding_of(
    expand: Expand = False,
    random: Random = None,
    most: Most = None,
    wildcards: WildcardsFolder = None,
) -> Expanding:
    """What the flags say."""

    def expanding(seed: int | None) -> "Expansion":
        from sdq.cli.expansion import expansion_of

        return expansion_of(expand, random, most, wildcards, seed)

    return expanding
