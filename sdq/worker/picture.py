"""One picture inside the engine, from the order to the answer that somebody waits for."""

import logging
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import msgspec
from PIL.Image import Image

from sdq.errors import Cancelled, GenerationFailed, InvalidSpec, OutOfMemory, SdqError
from sdq.spec import ImageSpec
from sdq.worker.flight import Flight, NoPicture, OnStep

MEMORY_HINT = "ask for a smaller picture, or draw it on a device with more memory"

_log = logging.getLogger(__name__)


class GivenBack(SdqError):
    """Not drawn, and the picture is not to blame: somebody else may draw it."""

    code = "given_back"


class DrawnImage(msgspec.Struct, frozen=True):
    image: Image
    draw_seconds: float
    """From its beginning to its end; others may have had their turns meanwhile."""


class Order(msgspec.Struct, frozen=True, eq=False):
    spec: ImageSpec
    on_step: OnStep
    is_cancelled: Callable[[], bool]
    future: "Future[DrawnImage]"
    wants_preview: Callable[[], bool] = lambda: False
    on_preview: Callable[[Image], None] = lambda image: None
    came_at_seconds: float = 0.0  # of the engine's clock

    @property
    def area_pixels(self) -> int:
        return self.spec.width * self.spec.height


class Picture:
    """An order that was begun. ``is_closing``: whether the engine wants to end."""

    def __init__(self, order: Order, is_closing: Callable[[], bool]) -> None:
        self.order = order
        self.area_pixels = order.area_pixels
        self.flight: Flight | None = None
        self._is_closing = is_closing
        self._told = -1
        self._began = time.perf_counter()

    @property
    def group(self) -> Hashable:
        return self.flight.group if self.flight else None

    @property
    def is_cancelled(self) -> bool:
        return self._is_closing() or self.order.is_cancelled()

    def tell(self, step: int, steps: int) -> None:
        """Tells that so many steps are done, each number once.

        Raises `Cancelled` when nobody waits for it any more. Not ``pipeline._interrupt``: that
        gives a half-made picture as if it were done.
        """
        if self.is_cancelled:
            raise Cancelled("the picture was cancelled")
        if step != self._told:
            self._told = step
            self.order.on_step(step, steps)

    def show(self, preview: Callable[[Flight], Image | None]) -> None:
        """Shows how far it is to whoever wants to see it. What goes wrong with that ends nothing:
        it is the picture that was asked for."""
        if self.flight is None:
            return
        try:
            if self.order.wants_preview():
                image = preview(self.flight)
                if image is not None:
                    self.order.on_preview(image)
        except Exception as error:  # noqa: BLE001 - as the docstring says
            _log.debug("no preview: %s: %s", type(error).__name__, error)

    def finish(self, image: Image) -> float:
        """Hands the picture over. Returns the seconds that it took; `NoPicture` when it is all
        black."""
        if not image.getbbox():
            raise NoPicture(
                "the picture came out all black",
                hint="other steps, guidance or another scheduler may help",
            )
        seconds = time.perf_counter() - self._began
        self.order.future.set_result(DrawnImage(image=image, draw_seconds=seconds))
        return seconds

    def fail(self, error: Exception) -> None:
        """Tells the one who waits; a full device in words."""
        if isinstance(error, MemoryError):
            error = _too_large(self.order.spec, error)
        self.order.future.set_exception(error)


def is_suspicious(error: Exception) -> bool:
    """Whether the model or the device may be to blame, and not the picture that was asked for."""
    if isinstance(error, NoPicture):
        return True
    return not isinstance(error, GenerationFailed | InvalidSpec | MemoryError)


def _too_large(spec: ImageSpec, error: MemoryError) -> OutOfMemory:
    return OutOfMemory(
        f"not enough memory to draw {spec.width}x{spec.height}: {str(error)[:200]}".rstrip(": "),
        hint=MEMORY_HINT,
    )
