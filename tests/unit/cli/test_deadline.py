"""``--timeout``: what is left, and what passes."""

import asyncio

import pytest

from sdq.cli.deadline import deadline
from sdq.errors import DeadlinePassed


async def test_what_takes_too_long_is_left_and_tells_what_became_of_it():
    tidied: list[int] = []

    async def wait() -> None:
        async with deadline(0.01, left=lambda: f"{len(tidied)} go on", hint="more time"):
            try:
                await asyncio.Event().wait()
            finally:
                tidied.extend([1, 2])  # asked only after this

    with pytest.raises(DeadlinePassed, match=r"not done within 0\.01 s: 2 go on") as caught:
        await wait()
    assert caught.value.hint == "more time"
    assert caught.value.exit_code == 7


async def test_another_time_out_is_none_of_ours():
    async def fail() -> None:
        async with deadline(60, left=str, hint=""):
            raise TimeoutError("of the disk")

    with pytest.raises(TimeoutError, match="of the disk"):
        await fail()


async def test_without_a_limit_nothing_is_cut():
    async with deadline(None, left=str, hint=""):
        await asyncio.sleep(0)
