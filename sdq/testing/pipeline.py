"""A pipeline that needs no torch and no time, and that fails when it is told to."""

import hashlib
import threading
from collections.abc import Callable

from PIL import Image

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec, canonical

SQUARE_SHARE = 0.5
"""Side of the square in the middle, as a share of the picture's."""


class FakePipeline:
    """Draws a square in one colour on another one, both from a hash of the spec.

    The same spec gives the same picture. A prompt that holds one of these words (when given)
    ends otherwise: ``fail_on``: an unexpected error, worth another attempt; ``out_of_memory_on``:
    the device is full; ``nan_on``: numbers that are no picture; ``black_on``: all black.
    ``fail_times`` bounds the unexpected errors, so that a later attempt succeeds.
    """

    def __init__(
        self,
        seconds_per_step: float = 0.0,
        *,
        fail_on: str = "",
        fail_times: int = 1_000_000,
        out_of_memory_on: str = "",
        nan_on: str = "",
        black_on: str = "",
    ) -> None:
        self.seconds_per_step = seconds_per_step
        self.fail_on = fail_on
        self.fail_times = fail_times
        self.out_of_memory_on = out_of_memory_on
        self.nan_on = nan_on
        self.black_on = black_on
        self.drawn: list[ImageSpec] = []
        """The specs begun, in order."""
        self._pause = threading.Event()

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Image.Image:
        """See `sdq.worker.engine.Pipeline`."""
        self.drawn.append(spec)
        steps = spec.num_inference_steps
        for step in range(1, steps + 1):
            if self.seconds_per_step:
                self._pause.wait(self.seconds_per_step)
            if step == (steps + 1) // 2:
                self._perhaps_fail(spec)
            on_step(step, steps)
        if _asked(self.black_on, spec):
            return Image.new("RGB", (spec.width, spec.height))
        return picture_of(spec)

    def _perhaps_fail(self, spec: ImageSpec) -> None:
        if _asked(self.fail_on, spec) and self.fail_times > 0:
            self.fail_times -= 1
            raise RuntimeError("the fake pipeline was told to fail")
        if _asked(self.out_of_memory_on, spec):
            raise MemoryError("the fake device is full")
        if _asked(self.nan_on, spec):
            raise GenerationFailed("the model gave no picture but numbers that are none (NaN)")


def picture_of(spec: ImageSpec) -> Image.Image:
    """What a `FakePipeline` draws for the spec."""
    ground, square = colours_of(spec)
    image = Image.new("RGB", (spec.width, spec.height), ground)
    width, height = (max(1, int(side * SQUARE_SHARE)) for side in image.size)
    left, top = (spec.width - width) // 2, (spec.height - height) // 2
    image.paste(square, (left, top, left + width, top + height))
    return image


def colours_of(spec: ImageSpec) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Ground and square; never equal, never black."""
    digest = hashlib.sha256(canonical(spec)).digest()
    ground = (digest[0] // 2 + 1, digest[1], digest[2])
    square = (digest[3] // 2 + 128, digest[4], digest[5])
    return ground, square


def _asked(word: str, spec: ImageSpec) -> bool:
    return bool(word) and word in spec.prompt
