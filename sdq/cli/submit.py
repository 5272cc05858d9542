"""``sdq submit``."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdq.cli import options
from sdq.cli import picture_options as flags
from sdq.cli import template_options as templates
from sdq.cli.taking import taking

if TYPE_CHECKING:
    from sdq.spec import SpecDraft

Cache = Annotated[
    Literal["prefer", "only", "refresh"],
    typer.Option(
        help="prefer: from the library, else drawn. only: from the library or not at all. "
        "refresh: drawn again.",
        rich_help_panel=flags.WAITING,
    ),
]


@taking(draft=flags.draft_of, expanding=templates.expanding_of)
def submit(
    prompt: flags.Prompt,
    *,
    draft: "SpecDraft",
    new: flags.New = False,
    count: flags.Count = 1,
    expanding: templates.Expanding,
    cache: Cache = "prefer",
    priority: flags.Priority = "normal",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> int:
    """Hand in pictures and leave: prints their job ids, one a line.

    `sdq attach` brings the pictures, from any machine.

    \b
    Examples:
      sdq submit "a red circle" -n 4 > jobs.txt
      sdq attach - -o circles/ < jobs.txt
    """
    flags.refuse_both(new, draft.seed)
    address = options.settings(client__server=server).client.server
    from sdq.cli.order import order_of
    from sdq.cli.output import Sink
    from sdq.cli.submitting import hand_in

    expansion = expanding(draft.seed)
    order = order_of(prompt, draft, new, count, cache, priority, expansion=expansion)
    return options.run(hand_in(address, order, Sink(as_json=as_json, quiet=quiet)))
