"""Signals end work, and the exit code tells which one it was."""

import asyncio
import os
import signal

import pytest

from sdq.stack.signals import StopSignals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)]
)
async def test_a_signal_cancels_the_work_which_may_clean_up(number: int, code: int) -> None:
    notes = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            notes.append("cleaned")

    with StopSignals() as signals:
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), number)
        await signals.interrupt(work())
        os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        await asyncio.sleep(0.01)

    assert notes == ["cleaned"]
    assert signals.stop.is_set()
    assert signals.exit_code == code


async def test_an_error_of_the_work_comes_through() -> None:
    async def work() -> None:
        raise ValueError("no")

    with StopSignals() as signals, pytest.raises(ValueError, match="no"):
        await signals.interrupt(work())
    assert signals.exit_code == 0
