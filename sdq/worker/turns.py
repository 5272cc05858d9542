"""The pictures in flight and their turns: begin, step, decode, and leave."""

import logging
from collections.abc import Callable, Sequence

from PIL.Image import Image

from sdq.errors import Cancelled
from sdq.worker.flight import Flight, Pipeline
from sdq.worker.picture import Order, Picture
from sdq.worker.rounds import Rounds, in_halves

Faults = list[tuple[Picture, Exception]]
"""Pictures that came to nothing, out of flight already, and why. They wait to be told."""

_log = logging.getLogger(__name__)


class Turns:
    """For the engine's thread. ``on_drawn`` hears of each picture's seconds per step."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        is_closing: Callable[[], bool],
        on_drawn: Callable[[float], None],
    ) -> None:
        self._pipeline = pipeline
        self._is_closing = is_closing
        self._on_drawn = on_drawn
        self._active: Rounds[Picture] = Rounds(pipeline.capacity)
        self._finished: Rounds[Picture] = Rounds(pipeline.decode_capacity)

    def __len__(self) -> int:
        return len(self._active) + len(self._finished)

    def has_room(self, order: Order) -> bool:
        """Whether one more may begin. What waits to be decoded counts, or it would pile up."""
        if len(self) >= self._active.capacity.pictures:
            return False
        others = _flights([*self._active, *self._finished])
        return self._active.has_room(order.area_pixels) and self._pipeline.joins(order.spec, others)

    def begin(self, order: Order) -> Faults:
        """Takes an order into flight, unless nobody waits for it any more."""
        if not order.future.set_running_or_notify_cancel():
            return []
        picture = Picture(order, self._is_closing)
        try:
            picture.tell(0, order.spec.num_inference_steps)
            picture.flight = self._pipeline.begin(order.spec, picture.tell)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits must hear it
            return [(picture, error)]
        self._active.add(picture)
        return []

    def turn(self) -> Faults:
        """One step for a group, then some decoding: so neither waits long for the other."""
        return self._drop_cancelled() + self._step() + self._decode()

    def abandon(self, reason: Exception) -> None:
        """Ends all that is in flight."""
        for rounds in (self._active, self._finished):
            for picture in rounds:
                rounds.remove(picture)
                picture.fail(reason)

    def _drop_cancelled(self) -> Faults:
        faults: Faults = []
        for rounds in (self._active, self._finished):
            for picture in rounds:
                if picture.is_cancelled:
                    rounds.remove(picture)
                    faults.append((picture, Cancelled("the picture was cancelled")))
        return faults

    def _step(self) -> Faults:
        faults: Faults = []

        def act(pictures: Sequence[Picture]) -> list[Exception | None]:
            return self._pipeline.step(_flights(pictures))

        def on_full(pictures: Sequence[Picture]) -> None:
            self._shrink(self._active, pictures, "drawn")

        for picture, fault in in_halves(act, self._active.turn(), on_full):
            error = fault or _told(picture)
            if error is not None:
                self._active.remove(picture)
                faults.append((picture, error))
            elif picture.flight is not None and picture.flight.is_finished:
                self._active.remove(picture)
                self._finished.add(picture)
        return faults

    def _decode(self) -> Faults:
        faults: Faults = []

        def act(pictures: Sequence[Picture]) -> list[Image | Exception]:
            return self._pipeline.decode(_flights(pictures))

        def on_full(pictures: Sequence[Picture]) -> None:
            self._shrink(self._finished, pictures, "decoded")

        for picture, made in in_halves(act, self._finished.turn(), on_full):
            self._finished.remove(picture)
            try:
                if isinstance(made, Exception):
                    raise made
                seconds = picture.finish(made)
            except Exception as error:  # noqa: BLE001 - as above
                faults.append((picture, error))
            else:
                self._on_drawn(seconds / picture.order.spec.num_inference_steps)
        return faults

    @staticmethod
    def _shrink(rounds: Rounds[Picture], pictures: Sequence[Picture], what: str) -> None:
        if rounds.shrink(pictures):
            _log.warning(
                "not enough memory for %d pictures at once; from now on at most %.2f megapixels "
                "are %s together",
                len(pictures),
                rounds.capacity.area_pixels / 1e6,
                what,
            )


def _flights(pictures: Sequence[Picture]) -> list[Flight]:
    return [picture.flight for picture in pictures if picture.flight is not None]


def _told(picture: Picture) -> Exception | None:
    """Tells how far it is; the error that this raised."""
    if picture.flight is None:
        return None
    try:
        picture.tell(picture.flight.step, picture.order.spec.num_inference_steps)
    except Exception as error:  # noqa: BLE001 - a listener's fault is its own picture's
        return error
    return None
