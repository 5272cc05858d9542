"""The columns of a batch file: what each is called, and what its value means."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from sdq.cli.picture_options import loras_of, sides_of
from sdq.errors import SdqError, UsageError
from sdq.spec import LoraChoice, SpecDraft

COLUMNS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "negative": "negative_prompt",
    "model": "model",
    "steps": "num_inference_steps",
    "num_inference_steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "guidance_scale": "guidance_scale",
    "width": "width",
    "height": "height",
    "size": "size",
    "scheduler": "scheduler",
    "seed": "seed",
    "loras": "loras",
    "count": "count",
    "output": "output",
}
"""Each name that a column may have, and the one that is meant."""


class BatchLine(msgspec.Struct, frozen=True):
    """One line of a batch, understood. ``variant``: which prompt of its template, from 0, and of
    how many at most."""

    number: int
    draft: SpecDraft
    count: int = 1
    output: str | None = None  # None: as -o says
    raw: str = ""
    variant: int = 0
    variants: int = 1

    @property
    def about(self) -> str:
        """Its name, for people."""
        return f"line {self.number}"


class BadLine(msgspec.Struct, frozen=True):
    """One that cannot be drawn, and why."""

    number: int
    error: SdqError
    raw: str = ""
    count: int = 1

    @property
    def about(self) -> str:
        return f"line {self.number}"


def check_columns(names: Iterable[object], where: str = "") -> None:
    """Raises `UsageError` for a name that there is not, or that is said twice."""
    meant: set[str] = set()
    for name in names:
        if name not in COLUMNS:
            near = get_close_matches(str(name), COLUMNS, 1)
            known = ", ".join(COLUMNS)
            raise UsageError(
                f"{where}there is no column {str(name)!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"there are {known}",
            )
        if COLUMNS[str(name)] in meant:
            raise UsageError(f"{where}the column {COLUMNS[str(name)]!r} is there twice")
        meant.add(COLUMNS[str(name)])


def line_of(
    number: int, fields: Mapping[str, object], raw: str, *, defaults: SpecDraft, count: int
) -> BatchLine:
    """The line of a row; empty cells are as the flags say. Raises `UsageError` naming the column.

    The numbers are not yet compared with what a model can do.
    """
    said: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        meaning = COLUMNS[name]
        try:
            said[meaning] = _READERS.get(meaning, _text)(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"column {name!r}: {value!r} is {error}") from error
    if "prompt" not in said:
        raise UsageError("there is no prompt", hint="each line says what its picture shows")
    count, output = said.pop("count", count), said.pop("output", None)
    if "size" in said:
        if "width" in said or "height" in said:
            raise UsageError("size says it all: leave width and height away")
        said["width"], said["height"] = said.pop("size")
    return BatchLine(number, msgspec.structs.replace(defaults, **said), count, output, raw)


def _text(value: object) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError("no text")
    return value if isinstance(value, str) else str(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("no whole number")
    try:
        number = float(value) if isinstance(value, str) and "." in value else value
        if isinstance(number, float) and not number.is_integer():
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        raise ValueError("no whole number") from None


def _count(value: object) -> int:
    if (count := _whole(value)) < 1:
        raise ValueError("less than 1")
    return count


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("no number")
    try:
        return float(value)
    except ValueError:
        raise ValueError("no number") from None


def _size(value: object) -> tuple[int, int]:
    return sides_of(_text(value).strip())


def _loras(value: object) -> tuple[LoraChoice, ...]:
    """``neon:0.8, ink``, or a list of such texts."""
    wishes = value if isinstance(value, list) else _text(value).split(",")
    return loras_of([_text(wish) for wish in wishes])


_READERS: dict[str, Callable[[object], Any]] = {
    "num_inference_steps": _whole,
    "guidance_scale": _number,
    "width": _whole,
    "height": _whole,
    "size": _size,
    "seed": _whole,
    "loras": _loras,
    "count": _count,
}
