"""What a picture of shapes must show: asked of the model, known of a drawn picture."""

from dataclasses import dataclass
from typing import TypeAlias

Combination: TypeAlias = tuple[str, str, str]
"""A shape, its colour, and the colour of the background."""


@dataclass(frozen=True)
class Thing:
    """One shape in one colour."""

    shape: str
    colour: str


@dataclass(frozen=True)
class Truth:
    """The contents of a picture.

    `kind` is one, two, many or other (scenes, flowers, faces: nothing of them is judged).
    `things` holds every shape in the picture; of two, the first is the one that stands in
    `relation` (and, left, right, above, below, inside) to the second. `place` is empty where
    the caption names none, and the shape is then in the middle.
    """

    kind: str
    background: str = ""
    things: tuple[Thing, ...] = ()
    place: str = ""
    relation: str = ""

    def combinations(self) -> frozenset[Combination]:
        """All (shape, colour, background) in the picture."""
        return frozenset((thing.shape, thing.colour, self.background) for thing in self.things)
