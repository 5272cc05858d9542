"""What the engine and a pipeline agree on: pictures in flight, turns, and what may go wrong.

::

    flight = pipeline.begin(spec, on_step)     # noise, prompt, scheduler
    pipeline.step([flight, other, …])          # one turn, all of one group
    pipeline.decode([flight, …])               # when flight.is_finished
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, runtime_checkable

import msgspec
from PIL.Image import Image

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec

OnStep = Callable[[int, int], None]
"""``on_step(step, steps)``; what it raises ends this picture and no other."""


class NoPicture(GenerationFailed):
    """What came out is no picture: the spec may be to blame, or the model, or the device."""


def as_exception(error: BaseException) -> Exception:
    """Of a library's panic, too: those written in Rust, as tokenizers are, raise what is no
    `Exception`, and a thread that does not expect that would end without a word."""
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


class Capacity(msgspec.Struct, frozen=True):
    """How much may be worked on at once; one picture always may, however large it is."""

    pictures: int
    area_pixels: int
    """Of all of them together, width times height."""


ONE = Capacity(pictures=1, area_pixels=0)


class Flight:
    """One picture under way. Owned by the engine's thread."""

    def __init__(self, spec: ImageSpec, group: Hashable) -> None:
        self.spec = spec
        self.group = group
        """Flights of one group fit into one turn."""
        self.step = 0
        """Steps done, as people count them: at most ``spec.num_inference_steps``."""
        self.is_finished = False
        """No step is left: it can be decoded."""


@runtime_checkable
class Pipeline(Protocol):
    """What the engine draws with. Only the engine's thread calls it.

    Each method raises `MemoryError` when the device is full and anything else for what it did
    not expect; flights keep their last good state then, and fewer of them may be tried again.
    """

    capacity: Capacity
    """Of a turn, and of what is under way at once."""
    decode_capacity: Capacity

    def joins(self, spec: ImageSpec, others: Sequence[Flight]) -> bool:
        """Whether this picture may begin while these are under way. True without others."""
        ...

    def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
        """A new flight. One that does several steps in a turn calls ``on_step`` between them.

        Raises `GenerationFailed` when the model refuses the spec.
        """
        ...

    def step(self, flights: Sequence[Flight]) -> list[Exception | None]:
        """One turn for flights of one group; finished ones are left alone.

        For each flight what ended it, or ``None``: that one came to nothing, the rest go on.
        """
        ...

    def preview(self, flight: Flight) -> Image | None:
        """How far it is, as a small picture: cheap. ``None`` when there is nothing to be seen."""
        ...

    def decode(self, flights: Sequence[Flight]) -> list[Image | Exception]:
        """The pictures of finished flights of one group, or why there is none: `NoPicture` when
        the numbers went wrong, `GenerationFailed` when the same spec would fail again."""
        ...


class Drawer(Protocol):
    """A pipeline that cannot be stepped from outside: it draws a picture in one go."""

    def draw(self, spec: ImageSpec, on_step: OnStep) -> Image:
        """The picture. ``on_step(step, steps)`` after each step; what it raises must pass.

        Raises `MemoryError` when there is too little, `GenerationFailed` when the same spec
        would fail again, `NoPicture` when what came out is none; anything else counts as
        bad luck.
        """
        ...
