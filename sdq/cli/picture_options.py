"""The flags that say what to draw; commands take them by `sdq.cli.taking`."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdq.cli import completion_words, options
from sdq.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdq.spec import LoraChoice, SpecDraft

PICTURE = "The picture"
WAITING = "Library and waiting"

Prompt = Annotated[
    str, typer.Argument(metavar="PROMPT", help="What to draw; - reads prompts, one a line.")
]
Negative = Annotated[
    str, typer.Option(metavar="TEXT", help="What not to draw.", rich_help_panel=PICTURE)
]
Steps = Annotated[int | None, typer.Option(metavar="N", min=1, rich_help_panel=PICTURE)]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="X", min=0, help="How closely to follow the prompt.", rich_help_panel=PICTURE
    ),
]
Width = Annotated[int | None, typer.Option(metavar="PIXELS", min=8, rich_help_panel=PICTURE)]
Height = Annotated[int | None, typer.Option(metavar="PIXELS", min=8, rich_help_panel=PICTURE)]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Width and height at once.", rich_help_panel=PICTURE),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="ddim, euler, dpmpp_2m, …",
        rich_help_panel=PICTURE,
        autocompletion=completion_words.schedulers,
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="NAME[:WEIGHT]",
        help="Small weights that change the model; repeat it for others. `sdq model loras` lists "
        "them.",
        show_default=False,
        autocompletion=completion_words.loras,
        rich_help_panel=PICTURE,
    ),
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
        rich_help_panel=PICTURE,
    ),
]
New = Annotated[bool, typer.Option("--new", help="A fresh random seed.", rich_help_panel=PICTURE)]
Count = Annotated[
    int,
    typer.Option(
        "-n", "--count", metavar="N", min=1, help="How many pictures.", rich_help_panel=PICTURE
    ),
]
Priority = Annotated[
    Literal["low", "normal", "high"],
    typer.Option(
        help="Which of your own jobs go first. It changes nothing for others.",
        rich_help_panel=WAITING,
    ),
]


def draft_of(
    model: options.Model = None,
    negative: Negative = "",
    steps: Steps = None,
    guidance: Guidance = None,
    width: Width = None,
    height: Height = None,
    size: Size = None,
    scheduler: Scheduler = None,
    lora: Loras = None,
    seed: Seed = None,
) -> "SpecDraft":
    """The draft, still without its prompt. Raises `UsageError` for flags that contradict each
    other."""
    from sdq.spec import SpecDraft

    width, height = _in_pixels(size, width, height)
    return SpecDraft(
        prompt="",
        negative_prompt=negative,
        model=model,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        seed=seed,
        loras=loras_of(lora or ()),
    )


def refuse_both(new: bool, seed: int | None) -> None:
    """Raises `UsageError` when a seed is given and ``--new`` is to draw one."""
    if new and seed is not None:
        raise UsageError("--new draws a seed: leave --seed away")


def loras_of(flags: "Sequence[str]") -> "tuple[LoraChoice, ...]":
    """What ``--lora neon:0.8 --lora ink`` means. Raises `UsageError`."""
    if not flags:
        return ()
    from sdq.spec import MAX_LORAS, LoraChoice

    choices: dict[str, LoraChoice] = {}
    for flag in flags:
        name, colon, weight = flag.strip().partition(":")
        if not name:
            raise UsageError(f"--lora {flag!r} names no LoRA", hint="write it as --lora neon:0.8")
        if name in choices:
            raise UsageError(f"--lora {name} is there twice", hint="name it once, with its weight")
        choices[name] = LoraChoice(name, _weight(flag, weight) if colon else None)
    if len(choices) > MAX_LORAS:
        raise UsageError(f"{len(choices)} LoRAs in one picture: at most {MAX_LORAS} can be drawn")
    return tuple(choices.values())


def _weight(flag: str, text: str) -> float:
    from sdq.spec import MAX_LORA_WEIGHT

    try:
        weight = float(text)
        if not -MAX_LORA_WEIGHT <= weight <= MAX_LORA_WEIGHT:  # NaN neither
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--lora {flag!r}: {text!r} is no weight",
            hint=f"a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}, as --lora neon:0.8",
        ) from None
    return weight


def _in_pixels(
    size: str | None, width: int | None, height: int | None
) -> tuple[int | None, int | None]:
    if size is None:
        return width, height
    if width is not None or height is not None:
        raise UsageError("--size says it all: leave --width and --height away")
    return sides_of(size)


def sides_of(size: str) -> tuple[int, int]:
    """Width and height of ``512x768``, in pixels. Raises `UsageError`."""
    if not (found := re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", size, re.ASCII)):
        raise UsageError(f"{size!r} is no size", hint="write WxH, as --size 512x768")
    return int(found[1]), int(found[2])
