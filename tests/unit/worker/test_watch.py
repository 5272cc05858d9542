"""What two threads tell each other about a picture."""

import threading
import time
from concurrent.futures import Future
from typing import Any

from sdq.worker.watch import Watch


def test_news_are_told_once() -> None:
    watch = Watch()
    assert not watch.begun
    watch.on_step(0, 4)
    began = time.monotonic()
    assert not watch.wait(60)
    assert time.monotonic() - began < 30
    assert watch.begun
    assert not watch.wait(0.01)


def test_the_end_is_told_for_ever() -> None:
    watch, future = Watch(), Future[Any]()
    future.add_done_callback(watch.on_done)
    waiting = threading.Timer(0.01, future.cancel)
    waiting.start()
    assert watch.wait(60)
    assert watch.wait(60)
    waiting.join()


def test_dropping_wakes_and_stops_the_engine() -> None:
    watch = Watch()
    assert not watch.is_over()
    watch.drop()
    assert not watch.wait(60)
    assert watch.is_over()
    assert (watch.is_dropped, watch.is_cancelled) == (True, False)


def test_cancelling_stops_the_engine() -> None:
    watch = Watch()
    watch.cancel()
    assert watch.is_over()
    assert (watch.is_dropped, watch.is_cancelled) == (False, True)
