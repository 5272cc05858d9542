"""``sdq generate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdq.cli import options
from sdq.cli import picture_options as flags
from sdq.cli import template_options as templates
from sdq.cli.taking import taking
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.cli.order import Order
    from sdq.config import ClientSettings
    from sdq.spec import SpecDraft

Cache = Annotated[
    Literal["prefer", "only", "refresh", "off"],
    typer.Option(
        help="prefer: from the library, else drawn. only: from the library or not at all. "
        "refresh: drawn again and kept. off: drawn and not kept.",
        rich_help_panel=flags.WAITING,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0.001,
        help="Give up and cancel after.",
        rich_help_panel=flags.WAITING,
    ),
]
Retry = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=100,
        help="Ask again, so many times, for what failed for a reason that may pass: a busy server "
        "or none, no worker, a picture that could not be drawn.",
        rich_help_panel=flags.WAITING,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT",
        help="What to draw; - reads prompts, one a line. Not needed with --from.",
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Draw what this picture file says, with the changes that a prompt and flags make; "
        "--negative ' ' is an empty one.",
        show_default=False,
        rich_help_panel=flags.PICTURE,
    ),
]
NoWait = Annotated[
    bool,
    typer.Option(
        "--no-wait",
        help="Fail at once when no worker online holds the model.",
        rich_help_panel=flags.WAITING,
    ),
]


@taking(draft=flags.draft_of, expanding=templates.expanding_of)
def generate(
    prompt: Prompt = None,
    *,
    output: options.Output = None,
    from_file: From = None,
    draft: "SpecDraft",
    new: flags.New = False,
    count: flags.Count = 1,
    expanding: templates.Expanding,
    cache: Cache = "prefer",
    priority: flags.Priority = "normal",
    timeout: Timeout = None,
    retry: Retry = 0,
    no_wait: NoWait = False,
    preview: options.Preview = False,
    show: options.Show = False,
    bell: options.Bell = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> int:
    """Draw pictures of a prompt.

    Paths go to standard output, all else to standard error.

    The same command gives the same picture; the second time it comes from the library.

    \b
    Examples:
      sdq generate "a red circle on a blue background" -o out.png
      sdq generate "a green square" -n 4 -o 'squares/{n:02}-{seed}.webp'
      sdq generate - -o pictures/ < prompts.txt
      sdq generate "a face" --steps 60 --preview --show
      sdq generate "a face, neon light" --lora neon:0.8
      sdq generate "a {red|green} {circle|square}" --expand -o shapes/
      sdq generate --from out.png --steps 60 -o better.png
    """
    flags.refuse_both(new, draft.seed)
    prompt, draft = _begun(prompt, draft, from_file, new=new)
    from sdq.cli.order import order_of
    from sdq.cli.showing import showing_of

    client = options.settings(client__server=server).client
    showing = showing_of(client, preview=preview, show=show, bell=bell, quiet=quiet)
    order = order_of(
        prompt, draft, new, count, cache, priority, not no_wait, timeout, retry, showing,
        expanding(draft.seed),
    )  # fmt: skip
    return _run(order, output, client, force=force, as_json=as_json, quiet=quiet)


def _begun(
    prompt: str | None, draft: "SpecDraft", from_file: str | None, *, new: bool
) -> "tuple[str, SpecDraft]":
    """The prompt, and the draft with what a file says where the flags say nothing."""
    if from_file is None:
        if prompt is None:
            raise UsageError("Missing argument 'PROMPT'", hint='sdq generate "a red circle"')
        return prompt, draft
    from sdq.cli.from_file import changed

    draft = changed(Path(from_file), draft, new=new)
    return draft.prompt if prompt is None else prompt, draft


def _run(
    order: "Order",
    output: str | None,
    client: "ClientSettings",
    *,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Everything that can be refused without a server is, before one is asked."""
    from sdq.cli.drawing import draw
    from sdq.cli.files import Outputs
    from sdq.cli.output import Sink

    outputs = Outputs(output, count=order.count, many_prompts=order.has_many_prompts, force=force)
    outputs.refuse_json(as_json)
    outputs.prepare()
    return options.run(draw(client, order, outputs, Sink(as_json=as_json, quiet=quiet)))
