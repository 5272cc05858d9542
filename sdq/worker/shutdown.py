"""Ending a worker: begun pictures are finished within a time, the rest is given back at once.

Asked by a signal, by the drain flag, or by the worker itself. A second signal, or the end of
the time, gives back what is being drawn too.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

LAST_SECONDS = 12.0
"""How long giving back may take, at the end, before the process is ended hard."""

SAME_SIGNAL_SECONDS = 0.5
"""Ctrl-C reaches a whole process group, and a supervisor passes it on: that counts as one."""

DRAINING = "draining"

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger(__name__)


class Shutdown:
    """Takes the signals while it is entered. For the main thread.

    ``drain`` must give back what was not begun, ``drop`` must make all jobs in hand end at
    once; ``tell`` says that the state has changed. They are called in a thread of our own.
    """

    def __init__(
        self,
        drain: Callable[[], None],
        drop: Callable[[], None],
        tell: Callable[[], None],
        *,
        drain_seconds: float,
    ) -> None:
        self.asked = False
        self._drain = drain
        self._drop = drop
        self._tell = tell
        self._drain_seconds = drain_seconds
        self._first_at = 0.0
        self._first, self._second, self._over = (threading.Event() for _ in range(3))
        self._stop_lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._run, name="sdq-shutdown", daemon=True)

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._over.set()
        self._first.set()
        self._second.set()
        self._thread.join()

    def ask(self) -> None:
        """The worker is to end, as after a first signal. From any thread."""
        if not self.asked:
            self.asked, self._first_at = True, time.monotonic()
        self._first.set()

    @contextlib.contextmanager
    def of(self, stop: Callable[[], None]) -> Iterator[None]:
        """``stop`` is called, in another thread, when the worker is asked to end."""
        with self._stop_lock:
            self._stop = stop
            if self.asked:
                stop()
        try:
            yield
        finally:
            with self._stop_lock:
                self._stop = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.ask()
        elif time.monotonic() - self._first_at > SAME_SIGNAL_SECONDS:
            self._second.set()

    def _run(self) -> None:
        self._first.wait()
        if self._over.is_set():
            return
        _log.info(
            "stopping: begun pictures are finished first, in at most %g s; a second signal "
            "gives them back",
            self._drain_seconds,
        )
        self._drain()
        self._tell()
        with self._stop_lock:
            if self._stop is not None:
                self._stop()
        self._second.wait(self._drain_seconds)
        if self._over.is_set():
            return
        _log.warning("not waiting any longer: jobs in hand are given back")
        self._drop()
        if not self._over.wait(LAST_SECONDS):
            _log.error("ended hard: a part of the worker did not stop")
            logging.shutdown()
            os._exit(1)
