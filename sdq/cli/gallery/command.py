"""``sdq gallery``."""

from pathlib import Path
from typing import Annotated

import typer

from sdq.cli import filters as which
from sdq.cli import options
from sdq.errors import UsageError

MAX_PICTURES = 5_000

Output = Annotated[
    str, typer.Option("-o", "--output", metavar="FILE", help="The page: one file, ending in .html.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="Take the picture files in this folder and below it, not the library. No server is "
        "asked.",
        show_default=False,
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        "--limit", metavar="N", min=1, max=MAX_PICTURES, help="At most so many, the newest."
    ),
]
Side = Annotated[
    int,
    typer.Option(
        "--thumbnail", metavar="PIXELS", min=32, max=1_024, help="The longer side of a thumbnail."
    ),
]
Title = Annotated[str, typer.Option(metavar="TEXT", help="The heading of the page.")]


def gallery(
    words: which.Words = None,
    output: Output = "gallery.html",
    folder: From = None,
    negative: which.Negative = "",
    model: which.Model = None,
    size: which.Size = None,
    since: which.Since = None,
    until: which.Until = None,
    lora: which.Lora = None,
    seed: which.Seed = None,
    pinned: which.Pinned = False,
    limit: Limit = 500,
    side: Side = 256,
    title: Title = "Pictures",
    force: options.Force = False,
    server: options.Server = None,
    as_json: options.Json = False,
) -> int:
    """Make one HTML file of thumbnails with their parameters, to be looked at and searched in a
    browser. It needs nothing else, and loads nothing from anywhere.

    \b
    Examples:
      sdq gallery -o gallery.html
      sdq gallery red circle --since 7d --title "Red circles" -o red.html
      sdq gallery --from pictures/ -o pictures.html
    """
    filters = which.filters_of(
        negative=negative, model=model, size=size, since=since, until=until,
        lora=lora, seed=seed, pinned=pinned,
    )  # fmt: skip
    if folder is not None and (words or any(filters.values())):
        raise UsageError(
            "words and filters ask the library, --from takes all of a folder",
            hint="leave one of them out; the page itself can be searched",
        )
    if not output.lower().endswith((".html", ".htm")):
        raise UsageError(f"{output!r} is no name of a page", hint="end it with .html")
    from sdq.cli.gallery.making import Page, of_folder, of_library

    page = Page(Path(output), title, side=side, limit=limit, force=force)
    if folder is not None:
        of_folder(page, Path(folder))
    else:
        client = options.settings(client__server=server).client
        if code := options.run(of_library(page, client, " ".join(words or ()), filters)):
            return code
    return page.tell(as_json=as_json)
