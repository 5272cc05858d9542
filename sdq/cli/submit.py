"""``sdq submit``."""

from typing import Annotated, Literal

import typer

from sdq.cli import options
from sdq.cli import picture_options as flags
from sdq.cli import template_options as templates

Cache = Annotated[
    Literal["prefer", "only", "refresh"],
    typer.Option(
        help="prefer: from the library, else drawn. only: from the library or not at all. "
        "refresh: drawn again.",
        rich_help_panel=flags.WAITING,
    ),
]


def submit(
    prompt: flags.Prompt,
    model: options.Model = None,
    negative: flags.Negative = "",
    steps: flags.Steps = None,
    guidance: flags.Guidance = None,
    width: flags.Width = None,
    height: flags.Height = None,
    size: flags.Size = None,
    scheduler: flags.Scheduler = None,
    lora: flags.Loras = None,
    seed: flags.Seed = None,
    new: flags.New = False,
    count: flags.Count = 1,
    expand: templates.Expand = False,
    random: templates.Random = None,
    most: templates.Most = None,
    wildcards: templates.WildcardsFolder = None,
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
    draft = flags.draft_of(
        negative=negative, model=model, sides=(size, width, height), steps=steps,
        guidance=guidance, scheduler=scheduler, seed=seed, new=new, loras=lora,
    )  # fmt: skip
    address = options.settings(client__server=server).client.server
    from sdq.cli.expansion import expansion_of
    from sdq.cli.order import order_of
    from sdq.cli.output import Sink
    from sdq.cli.submitting import hand_in

    expansion = expansion_of(expand, random, most, wildcards, seed)
    order = order_of(prompt, draft, new, count, cache, priority, expansion=expansion)
    return options.run(hand_in(address, order, Sink(as_json=as_json, quiet=quiet)))
