"""The axes of a sweep: comma lists of values, and the lines of all their combinations."""

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import msgspec

from sdq.cli.batch.columns import BatchLine
from sdq.cli.picture_options import sides_of
from sdq.errors import UsageError
from sdq.spec import SpecDraft

MAX_CELLS = 400


class Axis(msgspec.Struct, frozen=True):
    """A parameter and its values: what each is called, and the fields of the draft it sets."""

    labels: tuple[str, ...]
    fields: tuple[dict[str, Any], ...]


class Sweep(msgspec.Struct, frozen=True):
    """All combinations; the last axis that has several values goes across, the others down."""

    draft: SpecDraft
    axes: tuple[Axis, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self._across.labels if self._across is not None else ("",)

    @property
    def rows(self) -> tuple[str, ...]:
        down = [axis.labels for axis in self._varying if axis is not self._across]
        return tuple(", ".join(labels) for labels in itertools.product(*down))

    def lines(self) -> list[BatchLine]:
        """Row by row; the number of a line, from 1, is its place."""
        order = [axis for axis in self.axes if axis is not self._across]
        order += [self._across] if self._across is not None else []
        found = []
        for number, values in enumerate(itertools.product(*(axis.fields for axis in order)), 1):
            fields = {name: value for said in values for name, value in said.items()}
            found.append(BatchLine(number, msgspec.structs.replace(self.draft, **fields)))
        return found

    @property
    def _varying(self) -> list[Axis]:
        return [axis for axis in self.axes if len(axis.labels) > 1]

    @property
    def _across(self) -> Axis | None:
        return self._varying[-1] if self._varying else None


def sweep_of(draft: SpecDraft, prompts: Sequence[str], lists: dict[str, str | None]) -> Sweep:
    """A sweep over prompts and comma lists by flag. Raises `UsageError` for a value that means
    nothing, and for more than `MAX_CELLS` combinations."""
    axes = [Axis(tuple(prompts), tuple({"prompt": prompt} for prompt in prompts))]
    axes += [_axis(flag, text) for flag, text in lists.items() if text is not None]
    if (cells := prod(len(axis.labels) for axis in axes)) > MAX_CELLS:
        raise UsageError(
            f"the sweep has {cells} pictures, a sheet holds {MAX_CELLS}",
            hint="leave values out, or draw it by `sdq batch`",
        )
    return Sweep(draft, tuple(axes))


def _axis(flag: str, text: str) -> Axis:
    fields_of = _READERS[flag]
    values = [value.strip() for value in text.split(",")]
    if len(set(values)) < len(values):
        raise UsageError(f"--{flag} {text}: a value is there twice")
    try:
        fields = tuple(fields_of(value) for value in values)
    except ValueError:
        raise UsageError(
            f"--{flag} {text} is no list of values", hint=f"write it as {_EXAMPLES[flag]}"
        ) from None
    return Axis(tuple(f"{flag} {value}" for value in values), fields)


def _size(value: str) -> dict[str, Any]:
    width, height = sides_of(value)
    return {"width": width, "height": height}


def _word(name: str) -> Callable[[str], dict[str, Any]]:
    def fields(value: str) -> dict[str, Any]:
        if not value:
            raise ValueError
        return {name: value}

    return fields


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "model": _word("model"),
    "scheduler": _word("scheduler"),
    "size": _size,
    "seed": lambda value: {"seed": int(value)},
    "steps": lambda value: {"num_inference_steps": int(value)},
    "guidance": lambda value: {"guidance_scale": float(value)},
}
_EXAMPLES = {
    "model": "--model shapes,other",
    "scheduler": "--scheduler ddim,euler",
    "size": "--size 64x64,128x128",
    "seed": "--seed 1,2,3",
    "steps": "--steps 5,10,20",
    "guidance": "--guidance 3,7",
}
