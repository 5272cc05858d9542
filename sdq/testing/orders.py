"""Jobs to be added, without a catalog: equal numbers have equal keys."""

import hashlib

import msgspec

from sdq.protocol.vocabulary import Priority
from sdq.server.queue.job import NewJob
from sdq.spec import ImageSpec

_SPEC = ImageSpec("a red circle", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)


def order(
    number: int,
    identity: str = "127.0.0.1",
    *,
    model: str = "shapes",
    keep: bool = True,
    priority: Priority = Priority.NORMAL,
) -> NewJob:
    """What one person asks for; ``number`` becomes the picture's seed."""
    spec = msgspec.structs.replace(_SPEC, seed=number, model=model)
    key = hashlib.sha256(f"{model} {number}".encode()).hexdigest()
    return NewJob(key, spec, "f" * 64, keep, identity, priority)
