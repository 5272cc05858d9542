"""Runs a command's coroutine: Ctrl-C cancels it once, the second one ends the process."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_SHOW_CURSOR = "\x1b[?25h"


def run_async(command: Coroutine[Any, Any, int]) -> int:
    """The command's exit code; 130 after Ctrl-C, 143 after SIGTERM.

    The first signal cancels the command, which may take a moment to tell the server; the
    second one leaves at once.
    """
    return asyncio.run(_supervised(command))


async def _supervised(command: Coroutine[Any, Any, int]) -> int:
    task = asyncio.current_task()
    assert task is not None
    got: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        if got:
            _leave(_EXIT_CODES[number])
        got.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in _EXIT_CODES:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await command
    except asyncio.CancelledError:
        if not got:
            raise
        return _EXIT_CODES[got[0]]


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain exception in a group: what a person is told of tasks that failed."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _leave(code: int) -> None:
    """Ends the process without waiting for anything; the kernel closes the connection."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(code)
