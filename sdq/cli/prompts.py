"""Prompts from standard input, one a line, as they come."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sdq.cli.expansion import Expansion
from sdq.errors import UsageError

MAX_LINE_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024


async def prompts_of(
    prompt: str | None, expansion: Expansion
) -> AsyncGenerator[tuple[str, str], None]:
    """Each prompt to draw and its name for people: of the one given, or of standard input; what a
    template stands for, where that is asked for. Raises `UsageError` as `numbered_prompts`, and
    for a template that cannot be expanded."""
    if prompt is not None:
        expansion.look_at(prompt)
        for number, text in enumerate(expansion.of(prompt), 1):
            yield (f"prompt {number}" if expansion.is_asked_for else ""), text
        return
    async with aclosing(numbered_prompts()) as lines:
        async for number, line in lines:
            expansion.look_at(line)
            for text in expansion.of(line):
                yield f"line {number}", text


async def numbered_prompts() -> AsyncGenerator[tuple[int, str], None]:
    """The prompts on standard input, as `read_prompts`. Raises `UsageError` for none at all."""
    is_empty = True
    async with aclosing(read_prompts(sys.stdin.fileno())) as prompts:
        async for number, prompt in prompts:
            is_empty = False
            yield number, prompt
    if is_empty:
        raise UsageError(
            "there is no prompt on standard input",
            hint="with `-` as PROMPT, standard input holds one prompt a line",
        )


async def read_prompts(fd: int) -> AsyncGenerator[tuple[int, str], None]:
    """Each line that is not blank, with its number from 1.

    Raises `UsageError` for what is no UTF-8 or far too long. Reads only what is there, so a
    slow writer holds nothing up. Safe to cancel; what was read ahead is lost then.
    """
    number = 0
    async with aclosing(_lines(fd)) as lines:
        async for line in lines:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise UsageError(f"line {number} of standard input is not UTF-8") from error
            if text:
                yield number, text


async def _lines(fd: int) -> AsyncGenerator[bytes, None]:
    rest = b""
    while chunk := await read_some(fd):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise UsageError(
                f"a line of standard input is longer than {MAX_LINE_BYTES} bytes",
                hint="with `-` as PROMPT, standard input holds one prompt a line",
            )
    if rest:
        yield rest


async def read_some(fd: int) -> bytes:
    """Some bytes; none at the end. The descriptor stays as it is: others may share it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a regular file, or /dev/null: never makes anybody wait
        return os.read(fd, _CHUNK_BYTES)
    try:
        while True:
            await ready.wait()
            try:
                return os.read(fd, _CHUNK_BYTES)
            except BlockingIOError:
                ready.clear()
    finally:
        loop.remove_reader(fd)
