"""What a worker shows of pictures under way: small JPEGs, no more of them than a line can bear.

The engine makes one only when the job's own thread asks for it, after the next turn; that thread
shrinks, encodes and sends it. So there is never more than one of a picture, the newest.
"""

import io
import logging
import math
import threading
import time
from collections.abc import Callable

from PIL import Image

from sdq.broker import MAX_PREVIEW_BYTES
from sdq.worker.watch import Watch

INTERVAL_SECONDS = 0.2
"""Between two previews of a picture: five in a second look like growing."""

MAX_OF_A_PICTURE = 20
"""One of many steps shows every second or every fifth of them: further ones hardly differ."""

BYTES_PER_SECOND = 128 * 1024
"""Of all previews of a worker: a tenth of a home's line of 10 Mbit/s, and some forty previews, so
five each for eight pictures at once. No more than a second's is saved up."""

MIN_SIDE_PIXELS = 64
MAX_SIDE_PIXELS = 128
MAX_FACTOR = 4
"""Of the longer side. Small latents are scaled up so that there is something to look at, by no more
than they can bear."""

QUALITIES = (80, 60, 40)
"""Tried one after the other until the bytes are few enough."""

_log = logging.getLogger(__name__)


class Allowance:
    """The bytes that all jobs of a worker may send as previews. For any number of threads."""

    def __init__(
        self,
        bytes_per_second: float = BYTES_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._left_bytes = bytes_per_second
        self._counted_at = clock()
        self._lock = threading.Lock()

    @property
    def has_room(self) -> bool:
        """Whether another preview may be sent."""
        with self._lock:
            now = self._clock()
            saved = self._left_bytes + (now - self._counted_at) * self._bytes_per_second
            self._left_bytes, self._counted_at = min(saved, self._bytes_per_second), now
            return self._left_bytes > 0

    def take(self, size_bytes: int) -> None:
        """One of this size is sent: below nothing, the others wait until it is made up for."""
        with self._lock:
            self._left_bytes -= size_bytes


class Showing:
    """The previews of one picture; for its job's thread. ``is_wanted``: by somebody who waits."""

    def __init__(
        self,
        watch: Watch,
        steps: int,
        allowance: Allowance,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_wanted = False
        self._watch = watch
        self._every_steps = math.ceil(steps / MAX_OF_A_PICTURE)
        self._allowance = allowance
        self._clock = clock
        self._next_step = 0
        self._next_at = clock()

    def ask(self) -> None:
        """Asks the engine for the next one when it is its time; takes that back when nobody wants
        to see it any more."""
        is_due = self._watch.step >= self._next_step and self._clock() >= self._next_at
        self._watch.ask_preview(self.is_wanted and is_due and self._allowance.has_room)

    def newest(self) -> bytes:
        """The JPEG of one that has come since the last; empty when none has."""
        image = self._watch.take_preview()
        if image is None:
            return b""
        self._next_step = self._watch.step + self._every_steps - 1  # it comes after the next turn
        self._next_at = self._clock() + INTERVAL_SECONDS
        try:
            data = jpeg_of(image)
        except Exception as error:  # noqa: BLE001 - it is the picture that was asked for
            _log.debug("no preview: %s: %s", type(error).__name__, error)
            return b""
        self._allowance.take(len(data))
        return data


def jpeg_of(image: Image.Image) -> bytes:
    """A preview as it is sent, at most `MAX_PREVIEW_BYTES`; empty when that cannot be."""
    longest = max(image.size)
    factor = min(MAX_FACTOR, math.ceil(MIN_SIDE_PIXELS / longest))
    if longest * factor > MAX_SIDE_PIXELS:
        image = image.copy()
        image.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    elif factor > 1:
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.BICUBIC)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_PREVIEW_BYTES:
            return buffer.getvalue()
    return b""
