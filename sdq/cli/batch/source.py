"""The lines of a batch file or of standard input, as they come and bounded."""

import asyncio
import io
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO

from sdq.cli.prompts import read_some
from sdq.errors import UsageError

STDIN = "-"
STDIN_FD = 0
MAX_LINE_BYTES = 64 * 1024
MAX_ROWS = 1_000_000
MAX_BUFFERED_BYTES = 16 * 1024 * 1024
"""Of standard input where a format cannot be read line by line."""


@contextmanager
def opened(path: str) -> Iterator[int]:
    """The descriptor of a file, or of standard input. Raises `UsageError`."""
    if path == STDIN:
        yield STDIN_FD
        return
    try:
        # Opening a named pipe would wait for its writer, and nothing could end that.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="name a file of lines, or - for standard input",
        ) from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise UsageError(f"{path} is a folder", hint="name a file of lines")
        yield fd
    finally:
        os.close(fd)


async def lines_of(fd: int) -> AsyncGenerator[tuple[int, str | None], None]:
    """Each line with its number from 1 and without its end; ``None`` for one that is too long or
    no UTF-8.

    Waits for a slow writer without holding anything up. Safe to cancel.
    """
    number = 0
    async with aclosing(_raw_lines(fd)) as lines:
        async for line in lines:
            number += 1
            if line is None:
                yield number, None
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
            except UnicodeDecodeError:
                yield number, None


async def _raw_lines(fd: int) -> AsyncGenerator[bytes | None, None]:
    rest = b""
    is_too_long = False  # the rest of such a line is thrown away
    while chunk := await read_some(fd):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield None if is_too_long or len(line) > MAX_LINE_BYTES else line
            is_too_long = False
        if len(rest) > MAX_LINE_BYTES:
            is_too_long, rest = True, b""
    if is_too_long:
        yield None
    elif rest:
        yield rest


async def stream_of(fd: int) -> BinaryIO:
    """What parsers that read by themselves are given: the file, or all of standard input.

    Raises `UsageError` when that is more than `MAX_BUFFERED_BYTES`.
    """
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(os.dup(fd), "rb")
    parts: list[bytes] = []
    size_bytes = 0
    while chunk := await read_some(fd):
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > MAX_BUFFERED_BYTES:
            raise UsageError(
                f"this is more than {MAX_BUFFERED_BYTES >> 20} MiB of YAML on standard input",
                hint="give the file by its name, or JSON Lines, which has no such limit",
            )
    await asyncio.sleep(0)
    return io.BytesIO(b"".join(parts))


def is_seekable(path: str) -> bool:
    """Whether it can be gone through twice."""
    return path != STDIN and Path(path).is_file()
