"""A model that a worker has installed and may load when its turn comes."""

from collections.abc import Callable
from dataclasses import dataclass

from sdq.spec import ImageSpec
from sdq.worker.flight import Drawer, Pipeline


@dataclass(frozen=True)
class Holding:
    """``load`` is called in a thread of the engine's, each time the model comes into memory.

    ``needs_bytes``: of the device's memory, weights and work together; 0 when nobody knows.
    ``canary``: the picture that proves it, ``None`` for a model that is never doubted.
    """

    model_id: str
    load: Callable[[], Pipeline | Drawer]
    canary: ImageSpec | None = None
    needs_bytes: int = 0
