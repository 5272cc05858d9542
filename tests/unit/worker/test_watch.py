"""What two threads tell each other about a picture."""

import threading
import time
from concurrent.futures import Future
from typing import Any

from PIL import Image

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


def test_a_preview_is_made_when_it_is_asked_for_once() -> None:
    watch, image = Watch(), Image.new("RGB", (2, 2))
    assert not watch.wants_preview()
    watch.ask_preview(True)
    assert watch.wants_preview()
    watch.on_preview(image)
    assert not watch.wants_preview()
    assert not watch.wait(60)  # there is news
    watch.ask_preview(True)  # the one that lies here comes first
    assert not watch.wants_preview()
    assert watch.take_preview() is image
    assert watch.take_preview() is None
    watch.ask_preview(True)
    assert watch.wants_preview()
    watch.ask_preview(False)
    assert not watch.wants_preview()
