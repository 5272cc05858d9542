"""The turns of one model's pictures, turn by turn: previews, and what waits for memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec
import pytest
from PIL import Image

from sdq.errors import Cancelled, OutOfMemory
from sdq.spec import ImageSpec
from sdq.testing.stepping import SteppingFake
from sdq.worker import rounds
from sdq.worker.engine import GivenBack
from sdq.worker.flight import Capacity, Flight
from sdq.worker.picture import DrawnImage, Order
from sdq.worker.turns import Turns

AREA = 64 * 48  # of the fixture's picture


class Table:
    """Turns by hand; pictures differ in their seed."""

    def __init__(self, spec: ImageSpec, pipeline: SteppingFake) -> None:
        self.spec, self.pipeline = spec, pipeline
        self.has_neighbours = False
        self.cancelled: set[int] = set()
        self.futures: dict[int, Future[DrawnImage]] = {}
        self.turns = Turns(
            pipeline,
            is_closing=lambda: False,
            on_drawn=lambda seconds: None,
            has_neighbours=lambda: self.has_neighbours,
        )

    def order(
        self,
        seed: int,
        *,
        wants_preview: Callable[[], bool] = lambda: False,
        on_preview: Callable[[Image.Image], None] = lambda image: None,
        **changes: object,
    ) -> Order:
        self.futures[seed] = Future()
        return Order(
            msgspec.structs.replace(self.spec, seed=seed, **changes),
            lambda step, steps: None,
            lambda: seed in self.cancelled,
            self.futures[seed],
            wants_preview,
            on_preview,
            came_at_seconds=float(seed),
        )

    def begin(self, seed: int, **changes: object) -> None:
        self.settle(self.turns.begin(self.order(seed, **changes)))  # type: ignore[arg-type]

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.turns.is_ready
            self.settle(self.turns.turn())

    def run(self) -> None:
        while self.turns.is_ready:
            self.turn()

    @staticmethod
    def settle(faults: Sequence[tuple[object, Exception]]) -> None:
        for picture, error in faults:
            picture.fail(error)  # type: ignore[attr-defined]

    def ended(self) -> dict[int, type[Exception] | None]:
        """Those that are done with: what came of them."""
        return {
            seed: type(error) if (error := future.exception()) is not None else None
            for seed, future in self.futures.items()
            if future.done()
        }


# ---------------------------------------------------------------- previews


def test_a_preview_after_each_step_for_those_who_want_one(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake())
    seen: list[Image.Image] = []
    wanted = iter([True, False, True])
    table.begin(1, wants_preview=lambda: next(wanted), on_preview=seen.append)
    table.begin(2)
    table.run()
    assert table.pipeline.shown == [(1, 1), (1, 3)]  # never after the last step
    assert len(seen) == 2
    assert table.ended() == {1: None, 2: None}


def _raise(*_: object) -> bool:
    raise KeyError("the listener")


@pytest.mark.parametrize(
    "listener",
    [
        {"wants_preview": _raise},
        {"wants_preview": lambda: True, "on_preview": _raise},
        {"wants_preview": lambda: True, "prompt": "a bad cat"},
    ],
)
def test_a_preview_that_fails_ends_nothing(spec: ImageSpec, listener: dict[str, object]) -> None:
    table = Table(spec, SteppingFake(fail_preview_on="bad"))
    table.begin(1, **listener)
    table.run()
    assert table.ended() == {1: None}


def test_a_pipeline_may_have_nothing_to_show(spec: ImageSpec) -> None:
    class Blind(SteppingFake):
        def preview(self, flight: Flight) -> None:
            return None

    table = Table(spec, Blind())
    seen: list[Image.Image] = []
    table.begin(1, wants_preview=lambda: True, on_preview=seen.append)
    table.run()
    assert seen == []
    assert table.ended() == {1: None}


# ---------------------------------------------------------------- no memory to begin


def test_one_without_memory_to_begin_waits_until_somebody_left(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake())
    table.begin(1, num_inference_steps=2)
    table.pipeline.begins_in_vain = 1
    table.begin(2)
    assert table.turns.crowded_since_seconds is None
    assert len(table.turns) == 2
    assert not table.turns.has_room(table.order(3))  # first come, first served
    del table.futures[3]
    table.turn(2)
    assert table.ended() == {1: None}
    assert [drawn.seed for drawn in table.pipeline.drawn] == [1]
    table.turn()
    assert [drawn.seed for drawn in table.pipeline.drawn] == [1, 2]
    table.run()
    assert table.ended() == {1: None, 2: None}


def test_alone_it_is_too_large(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake(begins_in_vain=1))
    table.begin(1)
    assert table.ended() == {1: OutOfMemory}
    table.begin(2)
    table.pipeline.begins_in_vain = 2
    table.begin(3)
    table.run()
    assert table.ended() == {1: OutOfMemory, 2: None, 3: OutOfMemory}


def test_several_that_wait_are_tried_one_after_the_other(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake())
    table.begin(1, num_inference_steps=1)
    table.pipeline.begins_in_vain = 1
    table.begin(2)
    table.pipeline.begins_in_vain = 1
    table.begin(3)
    table.run()
    assert [drawn.seed for drawn in table.pipeline.drawn] == [1, 2, 3]
    assert table.ended() == {1: None, 2: None, 3: None}


def test_one_that_waits_to_begin_can_be_cancelled(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake())
    table.begin(1)
    table.pipeline.begins_in_vain = 1
    table.begin(2)
    table.cancelled.add(2)
    table.turn()
    assert table.ended() == {2: Cancelled}
    assert table.turns.has_room(table.order(3))
    table.turns.abandon(GivenBack("broken"))
    assert table.ended() == {1: GivenBack, 2: Cancelled}


def test_one_that_waits_can_be_cancelled_and_abandoned(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake())
    table.has_neighbours = True
    table.pipeline.begins_in_vain = 2
    table.begin(1)
    table.begin(2)
    assert not table.turns.is_ready
    table.cancelled.add(2)
    table.turn()
    assert table.ended() == {2: Cancelled}
    assert not table.turns.is_ready
    table.turns.abandon_crowded(GivenBack("no room"))
    assert table.ended() == {1: GivenBack, 2: Cancelled}
    assert len(table.turns) == 0


# ---------------------------------------------------------------- no memory beside others


def test_a_picture_too_large_beside_another_model_waits_for_it_to_leave(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake(fits_pixels=AREA // 2))
    table.has_neighbours = True
    table.begin(1)
    table.turn()
    assert table.ended() == {}
    assert table.turns.crowded_since_seconds == 1.0
    assert not table.turns.is_ready  # nothing has changed: no turn would do anything
    table.begin(2, width=16, height=16)
    table.run()  # smaller ones go on meanwhile, and their leaving says nothing
    assert table.ended() == {2: None}
    table.pipeline.fits_pixels = AREA
    table.turns.make_roomier()
    table.run()
    assert table.ended() == {1: None, 2: None}


def test_alone_with_the_device_it_is_too_large_after_all(spec: ImageSpec) -> None:
    table = Table(spec, SteppingFake(fits_pixels=AREA // 2))
    table.has_neighbours = True
    table.begin(1)
    table.turn()
    table.has_neighbours = False
    table.run()
    assert table.ended() == {1: OutOfMemory}


def test_decoding_waits_for_memory_too(spec: ImageSpec) -> None:
    class Full(SteppingFake):
        is_full = True

        def decode(self, flights: Sequence[Flight]) -> list[Image.Image | Exception]:
            if self.is_full:
                raise MemoryError("the fake device is full")
            return super().decode(flights)

    pipeline = Full()
    table = Table(spec, pipeline)
    table.has_neighbours = True
    table.begin(1, num_inference_steps=1)
    table.turn()
    assert not table.turns.is_ready
    pipeline.is_full = False
    table.turns.make_roomier()
    table.run()
    assert table.ended() == {1: None}


def test_the_limit_grows_back_but_not_to_what_failed(
    spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "GOOD_TURNS", 5)
    monkeypatch.setattr(rounds, "FORGIVEN_TURNS", 30)
    pipeline = SteppingFake(fits_pixels=3 * AREA, capacity=Capacity(4, 4 * AREA))
    table = Table(spec, pipeline)
    for seed in range(4):
        table.begin(seed, num_inference_steps=200)
    table.turn(6)
    assert {len(turn) for turn in pipeline.turns} == {2}
    table.turn(12)
    assert {len(turn) for turn in pipeline.turns[-10:]} == {3}
    pipeline.fits_pixels = 4 * AREA  # somebody else gave memory back
    table.turn(10)
    assert max(map(len, pipeline.turns)) == 3  # four were too many not long ago
    table.turn(30)
    assert max(map(len, pipeline.turns)) == 4
