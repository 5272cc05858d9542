"""The proof picture of a worker: what it must look like, and the mark of one that failed it.

A worker that gave numbers that are no picture, or ended with an error that nobody expected,
draws its model's canary. When that fails too, the fault is not the picture's: the worker is
broken. It leaves the queue and a mark in its home, so that its next start, by whomever, draws
the canary before it takes a job.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from PIL.Image import Image

from sdq.config import Home
from sdq.errors import Cancelled, ModelError, SdqError
from sdq.spec import ImageSpec
from sdq.worker import golden as goldens
from sdq.worker.flight import Pipeline

MAX_REASON_CHARACTERS = 500

_log = logging.getLogger(__name__)


def fault_of(image: Image, spec: ImageSpec, golden: str = "") -> str:
    """What is wrong with the proof picture of ``spec``, in words; empty when nothing is.

    ``golden``: the catalog's picture of it, empty where there is none. Raises `ModelError` when
    that one cannot be read.
    """
    if image.size != (spec.width, spec.height):
        size = "x".join(map(str, image.size))
        return f"it is {size} instead of {spec.width}x{spec.height}"
    bands = (image.getchannel(band).getextrema() for band in "RGB")
    if all(low == high for low, high in bands):
        return "it is a single flat colour"
    return goldens.fault_of(image, golden)


def draw_alone(pipeline: Pipeline, spec: ImageSpec, check: Callable[[], None]) -> Image:
    """One picture from its first step to its last, in the thread that calls.

    ``check`` is called between the steps; what it raises ends the drawing. Raises whatever
    stopped the picture.
    """

    def on_step(step: int, steps: int) -> None:
        check()

    flight = pipeline.begin(spec, on_step)
    while not flight.is_finished:
        check()
        for fault in pipeline.step([flight]):
            if fault is not None:
                raise fault
    (made,) = pipeline.decode([flight])
    if isinstance(made, Exception):
        raise made
    return made


def prove(pipeline: Pipeline, spec: ImageSpec, check: Callable[[], None], golden: str = "") -> str:
    """Draws the proof picture: what is wrong with it, in words, or nothing.

    Proves nothing, and finds nothing, when ``check`` raises `Cancelled`, or when there is no room
    for it at the moment: others fly, or other programs have the memory.
    """
    try:
        return fault_of(draw_alone(pipeline, spec, check), spec, golden)
    except (Cancelled, MemoryError):
        return ""
    except SdqError as error:
        return error.message or error.code
    except Exception as error:  # noqa: BLE001 - a proof that ends badly is the answer
        return f"{type(error).__name__}: {error}"


def marker_file(home: Home) -> Path:
    return home.worker_dir / "broken.txt"


def mark(home: Home, reason: str) -> None:
    """Leaves the mark. A home that cannot be written only costs the proof at the next start."""
    path = marker_file(home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason[:MAX_REASON_CHARACTERS] + "\n", "utf-8", errors="replace")
    except OSError as error:
        _log.warning("cannot write %s: %s", path, error.strerror or error)


def unmark(home: Home) -> None:
    """The canary succeeded."""
    try:
        marker_file(home).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("cannot remove %s: %s", marker_file(home), error.strerror or error)


def is_marked(home: Home) -> bool:
    """Whether the last worker of this home was broken. Its file may be half: it being there
    is what counts."""
    return marker_file(home).exists()


def broken(model_id: str, device: str, reason: str) -> ModelError:
    """The error that ends a broken worker, for the person who runs it."""
    return ModelError(
        f"{model_id} fails its proof picture on {device}: {reason}; this worker took itself out",
        hint="`sdq worker install` checks the model's files, `sdq worker run --device cpu` tries "
        "another device; the next start draws the proof picture before it takes a job",
    )
