"""A terminal that keeps what it is told."""

import os
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest
from PIL import Image


class Recorder:
    """Both ends of a pseudo-terminal; ``answers``: what it says when it is asked for its kind."""

    def __init__(self, answers: bytes = b"") -> None:
        self._controller, terminal = os.openpty()
        self.stream: TextIO = os.fdopen(terminal, "w", encoding="utf-8")
        self.path = os.ttyname(terminal)
        self._answers = answers
        self._heard = bytearray()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._controller, 65_536)
            except OSError:  # the last one has closed it
                return
            self._heard += piece
            if self._answers and b"\x1b[c" in piece:
                os.write(self._controller, self._answers)

    def heard(self) -> bytes:
        """All that was written; ends it."""
        self.close()
        return bytes(self._heard).replace(b"\r\n", b"\n")

    def close(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self.stream.close()
            self._reader.join()
            os.close(self._controller)


@pytest.fixture
def terminal() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def image() -> Image.Image:
    """Four colours in four quarters, 40 × 40."""
    made = Image.new("RGB", (40, 40), (250, 10, 20))
    made.paste((10, 240, 30), (20, 0, 40, 20))
    made.paste((20, 30, 230), (0, 20, 20, 40))
    made.paste((240, 240, 0), (20, 20, 40, 40))
    return made
