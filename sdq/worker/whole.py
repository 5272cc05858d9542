"""Pipelines that draw a picture in one go, for an engine that thinks in turns."""

from collections.abc import Sequence

from PIL.Image import Image

from sdq.spec import ImageSpec
from sdq.worker.flight import ONE, Drawer, Flight, OnStep, Pipeline


class WholeFlight(Flight):
    """All of its steps are one turn."""

    def __init__(self, spec: ImageSpec, on_step: OnStep) -> None:
        super().__init__(spec, group=None)
        self.on_step = on_step
        self.image: Image | None = None


class Whole:
    """See `sdq.worker.flight.Pipeline`. One picture at a time: it is begun when it is drawn."""

    def __init__(self, drawer: Drawer) -> None:
        self.drawer = drawer
        self.capacity = ONE
        self.decode_capacity = ONE

    def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
        return WholeFlight(spec, on_step)

    def step(self, flights: Sequence[Flight]) -> list[Exception | None]:
        for flight in flights:
            assert isinstance(flight, WholeFlight)
            flight.image = self.drawer.draw(flight.spec, flight.on_step)
            flight.step = flight.spec.num_inference_steps
            flight.is_finished = True
        return [None] * len(flights)

    def decode(self, flights: Sequence[Flight]) -> list[Image | Exception]:
        images: list[Image | Exception] = []
        for flight in flights:
            assert isinstance(flight, WholeFlight)
            assert flight.image is not None
            images.append(flight.image)
        return images


def as_pipeline(loaded: Pipeline | Drawer) -> Pipeline:
    """The pipeline itself when it takes turns, else one around it that does."""
    return loaded if isinstance(loaded, Pipeline) else Whole(loaded)
