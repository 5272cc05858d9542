"""The pictures of one model in flight and their turns: begin, step, decode, and leave.

Decoding happens between two steps, so it holds up the next one. That is bounded: a turn decodes
one batch at most, which `decode_capacity` keeps small, and what waits to be decoded counts as in
flight, so it cannot pile up. A picture is decoded once and stepped many times, so most turns have
nothing to decode. A thread of its own would gain little: both want the same device.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from PIL.Image import Image

from sdq.errors import Cancelled
from sdq.worker.flight import Flight, Pipeline, as_exception
from sdq.worker.picture import Order, Picture
from sdq.worker.rounds import Rounds, in_halves

Faults = list[tuple[Picture, Exception]]
"""Pictures that came to nothing, out of flight already, and why. They wait to be told."""

R = TypeVar("R")

_log = logging.getLogger(__name__)


class Turns:
    """For the engine's thread. ``on_drawn`` hears of each picture's seconds per step;
    ``has_neighbours``: whether other models are in memory, which may leave for a large picture.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        is_closing: Callable[[], bool],
        on_drawn: Callable[[float], None],
        has_neighbours: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pipeline = pipeline
        self._is_closing = is_closing
        self._on_drawn = on_drawn
        self._has_neighbours = has_neighbours
        self._active: Rounds[Picture] = Rounds(pipeline.capacity)
        self._finished: Rounds[Picture] = Rounds(pipeline.decode_capacity)
        self._held: list[Picture] = []  # no memory to begin beside others: when one has left
        self._has_left = False
        self._crowded: list[Picture] = []  # none beside other models: when one of those has left
        self._is_roomier = False

    def __len__(self) -> int:
        return self._under_way + len(self._held) + len(self._crowded)

    @property
    def is_ready(self) -> bool:
        """Whether a turn would do anything."""
        return self._under_way > 0 or self._next_again() is not None

    @property
    def crowded_since_seconds(self) -> float | None:
        """When the picture came that there is no memory for beside other models, by the engine's
        clock; ``None``: there is for all."""
        return self._crowded[0].order.came_at_seconds if self._crowded else None

    def has_room(self, order: Order) -> bool:
        """Whether one more may begin. What waits to be decoded counts, or it would pile up."""
        if self._held or len(self) >= self._active.capacity.pictures:
            return False
        others = _flights([*self._active, *self._finished])
        return self._active.has_room(order.area_pixels) and self._pipeline.joins(order.spec, others)

    def begin(self, order: Order) -> Faults:
        """Takes an order into flight, unless nobody waits for it any more. While there is no
        memory for it beside others, it waits here, and nobody else begins."""
        if not order.future.set_running_or_notify_cancel():
            return []
        return self._take_in(Picture(order, self._is_closing))

    def turn(self) -> Faults:
        """One step for a group, then some decoding: so neither waits long for the other."""
        return self._drop_cancelled() + self._try_again() + self._step() + self._decode()

    def make_roomier(self) -> None:
        """Another model has left memory: what has waited for that is tried again."""
        self._is_roomier = self._has_left = True

    def abandon(self, reason: Exception) -> None:
        """Ends all that is in flight."""
        for rounds in (self._active, self._finished):
            for picture in rounds:
                rounds.remove(picture)
                picture.fail(reason)
        for picture in self._held:
            picture.fail(reason)
        self._held.clear()
        self.abandon_crowded(reason)

    def abandon_crowded(self, reason: Exception) -> bool:
        """Ends what waits until another model has left memory. Whether there was anything."""
        crowded, self._crowded = self._crowded, []
        for picture in crowded:
            picture.fail(reason)
        return bool(crowded)

    # ------------------------------------------------------------ parts of a turn

    @property
    def _under_way(self) -> int:
        return len(self._active) + len(self._finished)

    def _drop_cancelled(self) -> Faults:
        dropped: list[Picture] = []
        for waiting in (self._held, self._crowded):
            dropped += [picture for picture in waiting if picture.is_cancelled]
            waiting[:] = [picture for picture in waiting if picture not in dropped]
        for rounds in (self._active, self._finished):
            for picture in rounds:
                if picture.is_cancelled:
                    self._leave(rounds, picture)
                    dropped.append(picture)
        return [(picture, Cancelled("the picture was cancelled")) for picture in dropped]

    def _step(self) -> Faults:
        faults: Faults = []

        def act(pictures: Sequence[Picture]) -> list[Exception | None]:
            return self._pipeline.step(_flights(pictures))

        for picture, fault in self._in_turn(self._active, act, "drawn"):
            error = fault or _told(picture)
            if error is not None:
                self._leave(self._active, picture)
                faults += self._ended(picture, error)
            elif picture.flight is not None and picture.flight.is_finished:
                self._active.remove(picture)
                self._finished.add(picture)
            else:
                picture.show(self._pipeline.preview)
        return faults

    def _decode(self) -> Faults:
        faults: Faults = []

        def act(pictures: Sequence[Picture]) -> list[Image | Exception]:
            return self._pipeline.decode(_flights(pictures))

        for picture, made in self._in_turn(self._finished, act, "decoded"):
            self._leave(self._finished, picture)
            try:
                if isinstance(made, Exception):
                    raise made
                seconds = picture.finish(made)
            except Exception as error:  # noqa: BLE001 - as in _take_in
                faults += self._ended(picture, error)
            else:
                self._on_drawn(seconds / picture.order.spec.num_inference_steps)
        return faults

    def _leave(self, rounds: Rounds[Picture], picture: Picture) -> None:
        rounds.remove(picture)
        self._has_left = True

    # ------------------------------------------------------------ too little memory

    def _take_in(self, picture: Picture) -> Faults:
        order = picture.order
        try:
            picture.tell(0, order.spec.num_inference_steps)
            picture.flight = self._pipeline.begin(order.spec, picture.tell)
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits must hear it
            return self._ended(picture, as_exception(error), others=self._under_way)
        self._active.add(picture)
        return []

    def _ended(self, picture: Picture, error: Exception, *, others: int = 0) -> Faults:
        """A picture that had too little memory waits, if something may leave that has some.

        ``others``: pictures beside which it could not begin. One that was under way had a turn
        of its own before it came here: only another model can make room for that.
        """
        if not isinstance(error, MemoryError) or not (others or self._has_neighbours()):
            return [(picture, error)]
        _log.info("a picture of %s waits for memory", picture.order.spec.model)
        if others:
            self._held.append(picture)
            self._has_left = False
        else:
            self._crowded.append(picture)
            self._is_roomier = False
        return []

    def _next_again(self) -> list[Picture] | None:
        """Where the first one waits that may be tried again: something has left, or nothing is
        there that could."""
        if self._held and (self._has_left or not self._under_way or _one_cancelled(self._held)):
            return self._held
        if self._crowded and (
            self._is_roomier or not self._has_neighbours() or _one_cancelled(self._crowded)
        ):
            return self._crowded
        return None

    def _try_again(self) -> Faults:
        waiting = self._next_again()
        if waiting is None:
            return []
        picture = waiting.pop(0)
        if picture.flight is None:
            return self._take_in(picture)
        (self._finished if picture.flight.is_finished else self._active).add(picture)
        return []

    @staticmethod
    def _in_turn(
        rounds: Rounds[Picture], act: Callable[[Sequence[Picture]], Sequence[R]], what: str
    ) -> list[tuple[Picture, R | Exception]]:
        """Does it for whoever is next. How much is done at once is less after too little memory,
        and slowly more again when all goes well."""

        def on_full(pictures: Sequence[Picture]) -> None:
            if rounds.shrink(pictures):
                _log.warning(
                    "not enough memory for %d pictures at once; for now at most %.2f megapixels "
                    "are %s together",
                    len(pictures),
                    rounds.capacity.area_pixels / 1e6,
                    what,
                )

        together = rounds.turn()
        results = in_halves(act, together, on_full)
        if not any(isinstance(result, MemoryError) for _, result in results):
            rounds.grow(together)
        return results


def _flights(pictures: Sequence[Picture]) -> list[Flight]:
    return [picture.flight for picture in pictures if picture.flight is not None]


def _one_cancelled(pictures: Sequence[Picture]) -> bool:
    return any(picture.is_cancelled for picture in pictures)


def _told(picture: Picture) -> Exception | None:
    """Tells how far it is; the error that this raised."""
    if picture.flight is None:
        return None
    try:
        picture.tell(picture.flight.step, picture.order.spec.num_inference_steps)
    except Exception as error:  # noqa: BLE001 - a listener's fault is its own picture's
        return error
    return None
