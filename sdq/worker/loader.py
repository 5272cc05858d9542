"""Brings models into memory and lets them go, beside the engine's thread, one change at a time."""

import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sdq.worker.flight import Pipeline, as_exception
from sdq.worker.holding import Holding
from sdq.worker.whole import as_pipeline

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What came of a change. ``pipeline`` of ``holding``, or why there is none."""

    holding: Holding | None = None
    pipeline: Pipeline | None = None
    error: Exception | None = None
    seconds: float = 0.0


class Loader:
    """For the engine's thread, which begins changes and takes what came of them; ``on_done`` is
    called when there is something to take. A thread for each change: what a library keeps for a
    thread (a pool of workers, memory of its own) ends with it.
    """

    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done
        self._thread: threading.Thread | None = None
        self._result: Loaded | None = None
        self.is_busy = False
        """A change has begun, and nobody has taken its end."""

    def begin(self, leaving: list[tuple[Holding, Pipeline]], coming: Holding | None) -> None:
        """Lets go of ``leaving``, then loads. The list is emptied: it must hold the last
        references to these pipelines, or their memory stays taken."""
        assert not self.is_busy
        self.is_busy = True
        self._thread = threading.Thread(
            target=self._change, args=(leaving, coming), name="sdq-loader", daemon=True
        )
        self._thread.start()

    def take(self) -> Loaded | None:
        """What came of the change, once; ``None`` while it goes on."""
        result = self._result
        if result is None:
            return None
        self._join(None)  # it has nothing left to do
        self._result, self.is_busy = None, False
        return result

    def close(self, timeout_seconds: float) -> bool:
        """Waits for the thread, which cannot be interrupted. True when it is gone."""
        return self._join(timeout_seconds)

    def _join(self, timeout_seconds: float | None) -> bool:
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_seconds)
        return not thread.is_alive()

    def _change(self, leaving: list[tuple[Holding, Pipeline]], coming: Holding | None) -> None:
        _let_go(leaving)
        self._result = _load(coming) if coming is not None else Loaded()
        self._on_done()


def _let_go(leaving: list[tuple[Holding, Pipeline]]) -> None:
    if not leaving:
        return
    gone = [holding for holding, _ in leaving]
    leaving.clear()
    gc.collect()  # pipelines and their parts refer to each other
    for holding in gone:
        try:
            holding.release()
        except Exception as error:  # noqa: BLE001 - a library's defect must not keep others out
            _log.warning("%s left memory, but not all of it: %s", holding.model_id, error)


def _load(holding: Holding) -> Loaded:
    begin = time.monotonic()
    try:
        pipeline = as_pipeline(holding.load())
    except BaseException as error:  # noqa: BLE001 - a library's defect must not leave us waiting
        return Loaded(holding, error=as_exception(error))
    return Loaded(holding, pipeline, seconds=time.monotonic() - begin)
