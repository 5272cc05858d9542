"""``sdq generate``."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdq.cli import options
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.cli.drawing import Order

_PICTURE = "The picture"
_FILES = "Files and output"
_WAITING = "Library and waiting"

Prompt = Annotated[
    str, typer.Argument(metavar="PROMPT", help="What to draw; - reads prompts, one a line.")
]
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
Negative = Annotated[
    str, typer.Option(metavar="TEXT", help="What not to draw.", rich_help_panel=_PICTURE)
]
Steps = Annotated[int | None, typer.Option(metavar="N", min=1, rich_help_panel=_PICTURE)]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="X", min=0, help="How closely to follow the prompt.", rich_help_panel=_PICTURE
    ),
]
Width = Annotated[int | None, typer.Option(metavar="PIXELS", min=8, rich_help_panel=_PICTURE)]
Height = Annotated[int | None, typer.Option(metavar="PIXELS", min=8, rich_help_panel=_PICTURE)]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Width and height at once.", rich_help_panel=_PICTURE),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="ddim, euler, dpmpp_2m, …", rich_help_panel=_PICTURE),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=2**32 - 1,
        help="Of the first picture; the others count up. Default: derived from the rest, so "
        "that the same command gives the same picture.",
        show_default=False,
        rich_help_panel=_PICTURE,
    ),
]
New = Annotated[bool, typer.Option("--new", help="A fresh random seed.", rich_help_panel=_PICTURE)]
Count = Annotated[
    int,
    typer.Option(
        "-n", "--count", metavar="N", min=1, help="How many pictures.", rich_help_panel=_PICTURE
    ),
]
Cache = Annotated[
    Literal["prefer", "only", "refresh", "off"],
    typer.Option(
        help="prefer: from the library, else drawn. only: from the library or not at all. "
        "refresh: drawn again and kept. off: drawn and not kept.",
        rich_help_panel=_WAITING,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0.001, help="Give up and cancel after.", rich_help_panel=_WAITING
    ),
]
NoWait = Annotated[
    bool,
    typer.Option(
        "--no-wait",
        help="Fail at once when no worker online holds the model.",
        rich_help_panel=_WAITING,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q", "--quiet", help="Nothing on standard error but errors.", rich_help_panel=_FILES
    ),
]


def generate(
    prompt: Prompt,
    output: Output = None,
    model: options.Model = None,
    negative: Negative = "",
    steps: Steps = None,
    guidance: Guidance = None,
    width: Width = None,
    height: Height = None,
    size: Size = None,
    scheduler: Scheduler = None,
    seed: Seed = None,
    new: New = False,
    count: Count = 1,
    cache: Cache = "prefer",
    timeout: Timeout = None,
    no_wait: NoWait = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: Quiet = False,
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
    """
    from sdq.cli.drawing import Order
    from sdq.protocol.messages import CachePolicy
    from sdq.spec import SpecDraft

    if new and seed is not None:
        raise UsageError("--new draws a seed: leave --seed away")
    wide, high = _size(size, width, height)
    draft = SpecDraft(
        prompt="",
        negative_prompt=negative,
        model=model,
        width=wide,
        height=high,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        seed=seed,
    )
    text = None if prompt == "-" else prompt
    order = Order(text, draft, new, count, CachePolicy(cache), not no_wait, timeout)
    return _run(order, output, server, force=force, as_json=as_json, quiet=quiet)


def _run(
    order: "Order",
    output: str | None,
    server: str | None,
    *,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Everything that can be refused without a server is, before one is asked."""
    from sdq.cli.drawing import draw
    from sdq.cli.files import Outputs
    from sdq.cli.output import Sink

    outputs = Outputs(output, count=order.count, many_prompts=order.prompt is None, force=force)
    if outputs.to_stdout and as_json:
        raise UsageError("-o - and --json both want standard output", hint="choose one of them")
    address = options.settings(client__server=server).client.server
    outputs.prepare()
    return options.run(draw(address, order, outputs, Sink(as_json=as_json, quiet=quiet)))


def _size(size: str | None, width: int | None, height: int | None) -> tuple[int | None, int | None]:
    if size is None:
        return width, height
    if width is not None or height is not None:
        raise UsageError("--size says it all: leave --width and --height away")
    if not (found := re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", size, re.ASCII)):
        raise UsageError(f"{size!r} is no size", hint="write WxH, as --size 512x768")
    return int(found[1]), int(found[2])
