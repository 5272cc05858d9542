"""Prompts from standard input: pipes, files, slow writers."""

import asyncio
import os
from pathlib import Path

import pytest

from sdq.cli.prompts import MAX_LINE_BYTES, read_prompts
from sdq.errors import UsageError


async def from_pipe(data: bytes) -> list[tuple[int, str]]:
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        os.close(writing)
        return [item async for item in read_prompts(reading)]
    finally:
        os.close(reading)


async def test_blank_lines_are_skipped_but_counted() -> None:
    assert await from_pipe(b"one\n\n  \r\ntwo\r\nthree") == [(1, "one"), (4, "two"), (5, "three")]


async def test_a_byte_order_mark_is_no_prompt() -> None:
    assert await from_pipe("\ufeffun chat\n".encode()) == [(1, "un chat")]


async def test_nothing_at_all() -> None:
    assert await from_pipe(b"") == []


async def test_what_is_no_text() -> None:
    with pytest.raises(UsageError, match=r"line 2 .* not UTF-8"):
        await from_pipe(b"fine\n\xff\xfe\n")


async def test_a_line_without_end() -> None:
    reading, writing = os.pipe()
    task = asyncio.create_task(asyncio.to_thread(write_all, writing, b"x" * (MAX_LINE_BYTES * 3)))
    try:
        with pytest.raises(UsageError, match="longer than"):
            await anext(read_prompts(reading))
    finally:
        os.close(reading)
        await task


def write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(fd)


async def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        assert [item async for item in read_prompts(file.fileno())] == [(1, "one"), (2, "two")]


async def test_lines_come_one_by_one() -> None:
    reading, writing = os.pipe()
    try:
        prompts = read_prompts(reading)
        os.write(writing, b"one\n")
        assert await anext(prompts) == (1, "one")
        os.write(writing, b"tw")
        second = asyncio.create_task(anext(prompts))
        await asyncio.sleep(0.01)
        assert not second.done()
        os.write(writing, b"o\n")
        assert await asyncio.wait_for(second, 5) == (2, "two")
        await prompts.aclose()
    finally:
        os.close(reading)
        os.close(writing)
