"""Ctrl-C, SIGTERM and a closed terminal as an event to wait for."""

import asyncio
import signal
from collections.abc import Coroutine
from types import TracebackType

INTERRUPTED_EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, these signals set ``stop``. In a coroutine of the main thread only."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._received: signal.Signals | None = None

    def __enter__(self) -> "StopSignals":
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def _receive(self, number: signal.Signals) -> None:
        self._received = self._received or number
        self.stop.set()

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 0: being told to end is no failure."""
        return INTERRUPTED_EXIT_CODE if self._received is signal.SIGINT else 0

    async def interrupt(self, work: Coroutine[None, None, None]) -> None:
        """Does the work until it ends, raises, or a signal comes: then it is cancelled."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait({working, stopping})
        if not working.cancelled():
            working.result()
