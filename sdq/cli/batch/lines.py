"""From the rows of a file to lines that can be drawn, and those that cannot."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import islice

import msgspec

from sdq.cli.batch.columns import BadLine, BatchLine, line_of
from sdq.cli.batch.formats import Reader
from sdq.cli.batch.rows import Row
from sdq.cli.batch.source import MAX_ROWS
from sdq.cli.expansion import Expansion
from sdq.errors import SdqError, UsageError
from sdq.spec import SpecDraft

_AT_A_STRETCH = 200
"""Rows of a file that are read before others have their turn."""

AnyLine = BatchLine | BadLine
Lines = AsyncGenerator[AnyLine, None]


class Understanding(msgspec.Struct, frozen=True):
    """What the flags say of lines that do not say it themselves."""

    defaults: SpecDraft
    count: int
    expansion: Expansion


async def lines_of_file(reader: Reader, fd: int, how: Understanding) -> Lines:
    """The lines, as they come; a template gives several. Raises `UsageError` for what spoils the
    whole file, and for one without any line."""
    is_empty = True
    rows = 0
    async with aclosing(reader.rows(fd)) as found:
        async for row in found:
            is_empty = False
            rows += 1
            if rows > MAX_ROWS:
                raise UsageError(f"the file has more than {MAX_ROWS} lines", hint="split it")
            if rows % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)
            for line in understood(row, how):
                yield line
    if is_empty:
        raise UsageError("there is no line to draw", hint="`sdq batch --help` shows examples")


def understood(row: Row, how: Understanding) -> list[AnyLine]:
    """The lines of a row, bounded by what the expansion allows."""
    if row.problem is not None:
        return [BadLine(row.number, row.problem, row.raw, how.count)]
    try:
        line = line_of(row.number, row.fields, row.raw, defaults=how.defaults, count=how.count)
        prompt = line.draft.prompt
        how.expansion.look_at(prompt)
        variants = how.expansion.count(prompt)
        return [
            msgspec.structs.replace(
                line,
                draft=msgspec.structs.replace(line.draft, prompt=text),
                variant=variant,
                variants=variants,
            )
            for variant, text in enumerate(islice(how.expansion.of(prompt), how.expansion.most))
        ]
    except SdqError as error:
        return [BadLine(row.number, error, row.raw, how.count)]


async def counted(reader: Reader, fd: int, how: Understanding) -> int:
    """How many pictures a file asks for."""
    total = 0
    async with aclosing(lines_of_file(reader, fd, how)) as lines:
        async for line in lines:
            total += line.count
    return total
