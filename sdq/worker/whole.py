"""Pipelines that draw a picture in one go, for an engine that thinks in turns."""

from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from sdq.spec import ImageSpec
from sdq.worker.flight import ONE, Capacity, Drawer, Flight, OnStep, Pipeline


@runtime_checkable
class GroupDrawer(Drawer, Protocol):
    """A `Drawer` that can draw several alike pictures in one go."""

    capacity: Capacity

    def group_of(self, spec: ImageSpec) -> Hashable:
        """Equal for those that fit into one call."""
        ...

    def draw_many(
        self, specs: Sequence[ImageSpec], on_steps: Sequence[OnStep]
    ) -> list[Image | Exception]:
        """The pictures of one group, or what ended each. Raises what `draw` raises for faults
        that are not one picture's own, such as `MemoryError`."""
        ...


class WholeFlight(Flight):
    """All of its steps are one turn."""

    def __init__(self, spec: ImageSpec, group: Hashable, on_step: OnStep) -> None:
        super().__init__(spec, group)
        self.on_step = on_step
        self.image: Image | None = None


class Whole:
    """See `sdq.worker.flight.Pipeline`. A picture is begun when its turn has come, together with
    those that are like it."""

    def __init__(self, drawer: Drawer) -> None:
        self._drawer = drawer
        self._grouping = drawer if isinstance(drawer, GroupDrawer) else None
        self.capacity = self._grouping.capacity if self._grouping else ONE
        self.decode_capacity = self.capacity

    def joins(self, spec: ImageSpec, others: Sequence[Flight]) -> bool:
        return all(flight.group == self._group_of(spec) for flight in others)

    def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
        return WholeFlight(spec, self._group_of(spec), on_step)

    def step(self, flights: Sequence[Flight]) -> list[Exception | None]:
        own = [_own(flight) for flight in flights]
        faults: list[Exception | None] = []
        for flight, made in zip(own, self._draw(own), strict=True):
            if isinstance(made, Exception):
                faults.append(made)
            else:
                faults.append(None)
                flight.image = made
                flight.step = flight.spec.num_inference_steps
                flight.is_finished = True
        return faults

    def preview(self, flight: Flight) -> Image | None:
        """None: nobody sees into the pipeline's own call."""
        return None

    def decode(self, flights: Sequence[Flight]) -> list[Image | Exception]:
        images = [_own(flight).image for flight in flights]
        return [image for image in images if image is not None]

    def _draw(self, flights: Sequence[WholeFlight]) -> list[Image | Exception]:
        if self._grouping is None:
            return [self._drawer.draw(flight.spec, flight.on_step) for flight in flights]
        return self._grouping.draw_many(
            [flight.spec for flight in flights], [flight.on_step for flight in flights]
        )

    def _group_of(self, spec: ImageSpec) -> Hashable:
        return self._grouping.group_of(spec) if self._grouping else None


def as_pipeline(loaded: Pipeline | Drawer) -> Pipeline:
    """The pipeline itself when it takes turns, else one around it that does."""
    return loaded if isinstance(loaded, Pipeline) else Whole(loaded)


def _own(flight: Flight) -> WholeFlight:
    assert isinstance(flight, WholeFlight)
    return flight
