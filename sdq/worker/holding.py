"""A model that a worker has installed and may load when its turn comes."""

from collections.abc import Callable
from dataclasses import dataclass

from sdq.spec import ImageSpec
from sdq.worker.flight import Drawer, Pipeline


def _nothing() -> None:
    """What most devices need once a model is gone."""


@dataclass(frozen=True)
class Holding:
    """``load`` is called in a thread of the engine's, each time the model comes into memory. It
    raises `MemoryError`, or an error that one caused, when there is too little for it.

    ``needs_bytes``: of the device's memory, weights and work together; 0 when nobody knows.
    ``canary``: the picture that proves it, ``None`` for a model that is never doubted.
    ``golden``: how that should look, as the catalog has it; empty where nobody has made one.
    ``release`` is called in the same thread when the model has left memory and Python's part of
    it is gone: what a library keeps for later (`sdq.worker.pipelines.empty_cache`) goes back then.
    """

    model_id: str
    load: Callable[[], Pipeline | Drawer]
    canary: ImageSpec | None = None
    needs_bytes: int = 0
    release: Callable[[], None] = _nothing
    golden: str = ""
