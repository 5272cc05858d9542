"""A pipeline that needs no torch and no time, and that fails when it is told to."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from sdq.spec import ImageSpec, canonical
from sdq.worker.flight import Drawer, NoPicture, Pipeline
from sdq.worker.holding import Holding

SQUARE_SHARE = 0.5
"""Side of the square in the middle, as a share of the picture's."""


class FakePipeline:
    """Draws a square in one colour on another one, both from a hash of the spec.

    The same spec gives the same picture. A prompt that holds one of these words (when given)
    ends otherwise: ``fail_on``: an unexpected error, worth another attempt; ``out_of_memory_on``:
    the device is full; ``nan_on``: numbers that are no picture; ``black_on``: all black.
    ``fail_times`` bounds the unexpected errors, so that a later attempt succeeds.

    ``break_after``: from this picture on (1 is the first) all end as with ``nan_on``, proof
    pictures too; 0 never. ``drawn_log``: a file that gets `drawn_line` of each finished picture.
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
        break_after: int = 0,
        drawn_log: Path | None = None,
    ) -> None:
        self.seconds_per_step = seconds_per_step
        self.fail_on = fail_on
        self.fail_times = fail_times
        self.out_of_memory_on = out_of_memory_on
        self.nan_on = nan_on
        self.black_on = black_on
        self.break_after = break_after
        self.drawn_log = drawn_log
        self.drawn: list[ImageSpec] = []
        """The specs begun, in order."""
        self._pause = threading.Event()

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Image.Image:
        """See `sdq.worker.flight.Drawer`."""
        self.drawn.append(spec)
        steps = spec.num_inference_steps
        for step in range(1, steps + 1):
            if self.seconds_per_step:
                self._pause.wait(self.seconds_per_step)
            if step == (steps + 1) // 2:
                self.perhaps_fail(spec)
            on_step(step, steps)
        return self.finished(spec)

    def finished(self, spec: ImageSpec) -> Image.Image:
        """What comes out after the last step; a line in the log says so."""
        if asked(self.black_on, spec):
            return Image.new("RGB", (spec.width, spec.height))
        if self.drawn_log is not None:
            _append(self.drawn_log, drawn_line(spec))
        return picture_of(spec)

    def perhaps_fail(self, spec: ImageSpec) -> None:
        """In the middle of a picture: raises what it was told to."""
        if asked(self.fail_on, spec) and self.fail_times > 0:
            self.fail_times -= 1
            raise RuntimeError("the fake pipeline was told to fail")
        if asked(self.out_of_memory_on, spec):
            raise MemoryError("the fake device is full")
        if asked(self.nan_on, spec) or 0 < self.break_after <= len(self.drawn):
            raise NoPicture("the model gave no picture but numbers that are none (NaN)")


def held(
    pipeline: Pipeline | Drawer, canary: ImageSpec | None = None, model_id: str = "shapes"
) -> Holding:
    """A model that is loaded at once, as this pipeline."""
    return Holding(model_id, lambda: pipeline, canary)


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


def drawn_line(spec: ImageSpec) -> str:
    """A line of the drawn log: a hash of the spec, its seed, its prompt as JSON."""
    digest = hashlib.sha256(canonical(spec)).hexdigest()[:16]
    return f"{digest} {spec.seed} {json.dumps(spec.prompt)}\n"


def _append(path: Path, line: str) -> None:
    """In one write, so that several workers may share the file, and a kill tears no line."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def asked(word: str, spec: ImageSpec) -> bool:
    """Whether the picture is one that is to fail."""
    return bool(word) and word in spec.prompt
