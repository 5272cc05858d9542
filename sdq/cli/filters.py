"""The words and flags that say which pictures of the library are meant."""

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli.picture_options import sides_of
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.client.searching import Filters

_WHICH = "Which pictures"
_UNIT_SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[WORD]...",
        help='Words of the prompt in any order, "phrases" in quotation marks, begin*.',
        show_default=False,
    ),
]
Negative = Annotated[
    str, typer.Option(metavar="WORDS", help="The same of the negative prompt.",
                      rich_help_panel=_WHICH)
]  # fmt: skip
Model = Annotated[
    str | None, typer.Option(metavar="ID", help="Drawn by this model.", rich_help_panel=_WHICH)
]
Size = Annotated[
    str | None, typer.Option(metavar="WxH", help="Of this size.", rich_help_panel=_WHICH)
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="Drawn then or later: 2026-11-01, 2026-11-01T18:30, or 90m, 12h, 3d, 2w ago.",
        rich_help_panel=_WHICH,
    ),
]
Until = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Drawn before.", rich_help_panel=_WHICH)
]
Lora = Annotated[
    str | None, typer.Option(metavar="NAME", help="Drawn with this LoRA.", rich_help_panel=_WHICH)
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", min=0, max=2**32 - 1, rich_help_panel=_WHICH)
]
Pinned = Annotated[bool, typer.Option("--pinned", help="Only pinned ones.", rich_help_panel=_WHICH)]


def filters_of(
    *,
    negative: str = "",
    model: str | None = None,
    size: str | None = None,
    since: str | None = None,
    until: str | None = None,
    lora: str | None = None,
    seed: int | None = None,
    pinned: bool = False,
    before: int | None = None,
) -> "Filters":
    """What the flags mean. Raises `UsageError`."""
    now = time.time()
    return {
        "negative": negative,
        "model": model,
        "size": None if size is None else sides_of(size),
        "since": None if since is None else moment_of(since, now),
        "until": None if until is None else moment_of(until, now),
        "lora": lora,
        "seed": seed,
        "pinned": pinned,
        "before": before,
    }


def moment_of(text: str, now: float) -> float:
    """Seconds since 1970 of ``3d`` (ago) or of a date, in local time unless it names a zone.

    Raises `UsageError`.
    """
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower(), re.ASCII):
        return max(0.0, now - int(found[1]) * _UNIT_SECONDS[found[2]])
    try:
        return max(0.0, datetime.fromisoformat(text.strip()).timestamp())
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r} is no time", hint="write 2026-11-01, 2026-11-01T18:30, or 90m, 12h, 3d, 2w"
        ) from None
