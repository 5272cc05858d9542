"""A pipeline that takes turns as the real one does, without torch: for tests of batching."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, asked, picture_of
from sdq.worker.flight import Capacity, Flight, OnStep


class FakeFlight(Flight):
    """Pictures of one size share their turns."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec, group=(spec.width, spec.height))


class SteppingFake(FakePipeline):
    """A `FakePipeline` step by step: its pictures and its failures, many in a turn.

    A turn costs ``seconds_per_turn`` however many share it. ``fits_pixels``: a turn of more than
    this is out of memory. ``fail_turn_on``: a word in the prompt of a picture whose presence ends
    each turn in an unexpected error. ``begins_in_vain``: so many of the next pictures find no
    memory to begin. ``fail_preview_on``: a word in the prompt of a picture that cannot be shown.
    ``gate``: a turn begins only while it is set.
    """

    def __init__(
        self,
        seconds_per_turn: float = 0.0,
        *,
        capacity: Capacity | None = None,
        fits_pixels: int = 10**9,
        fail_turn_on: str = "",
        fail_preview_on: str = "",
        begins_in_vain: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.seconds_per_turn = seconds_per_turn
        self.capacity = capacity or Capacity(pictures=8, area_pixels=10**9)
        self.decode_capacity = self.capacity
        self.fits_pixels = fits_pixels
        self.fail_turn_on = fail_turn_on
        self.fail_preview_on = fail_preview_on
        self.begins_in_vain = begins_in_vain
        self.turns: list[list[tuple[int, int]]] = []
        """Of each turn that succeeded: the seeds of its pictures and the steps they had done."""
        self.decoded: list[list[int]] = []
        """Of each decoding: the seeds."""
        self.shown: list[tuple[int, int]] = []
        """Of each preview: the seed, and the steps that were done."""
        self.gate = threading.Event()
        self.gate.set()

    def joins(self, spec: ImageSpec, others: Sequence[Flight]) -> bool:
        """See `sdq.worker.flight.Pipeline`."""
        return True

    def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
        """See `sdq.worker.flight.Pipeline`."""
        if self.begins_in_vain:
            self.begins_in_vain -= 1
            raise MemoryError("the fake device is full")
        self.drawn.append(spec)
        return FakeFlight(spec)

    def step(self, flights: Sequence[Flight]) -> list[Exception | None]:
        """See `sdq.worker.flight.Pipeline`."""
        self.gate.wait()
        if self.seconds_per_turn:
            time.sleep(self.seconds_per_turn)
        if sum(flight.spec.width * flight.spec.height for flight in flights) > self.fits_pixels:
            raise MemoryError("the fake device is full")
        if any(asked(self.fail_turn_on, one.spec) for one in flights):
            raise RuntimeError("the fake pipeline was told to fail the turn")
        self.turns.append([(flight.spec.seed, flight.step) for flight in flights])
        return [self._step_one(flight) for flight in flights]

    def preview(self, flight: Flight) -> Image.Image | None:
        """The finished picture with an eighth of its sides."""
        self.shown.append((flight.spec.seed, flight.step))
        if asked(self.fail_preview_on, flight.spec):
            raise RuntimeError("the fake pipeline was told to show nothing")
        return picture_of(flight.spec).reduce(8)

    def decode(self, flights: Sequence[Flight]) -> list[Image.Image | Exception]:
        """See `sdq.worker.flight.Pipeline`."""
        self.decoded.append([flight.spec.seed for flight in flights])
        return [self.finished(flight.spec) for flight in flights]

    def _step_one(self, flight: Flight) -> Exception | None:
        steps = flight.spec.num_inference_steps
        flight.step += 1
        flight.is_finished = flight.step >= steps
        if flight.step != (steps + 1) // 2:
            return None
        try:
            self.perhaps_fail(flight.spec)
        except Exception as error:  # noqa: BLE001 - whatever it was told to be
            return error
        return None
