"""Rows: what a line of a batch file says, before anybody looks whether it makes sense."""

from collections.abc import Mapping

import msgspec

from sdq.errors import UsageError


class Row(msgspec.Struct, frozen=True):
    """One entry of the file. ``number``: of the line where it begins, from 1. ``raw``: the entry
    as it can stand in a file of the same format, without the line's end."""

    number: int
    fields: Mapping[str, object] = {}
    raw: str = ""
    problem: UsageError | None = None
    """Why it cannot be read; the others can."""


def unreadable(number: int) -> Row:
    """A line that is no text."""
    return Row(
        number, problem=UsageError("the line is no UTF-8, or too long", hint="at most 64 KiB")
    )
