"""Pipelines that cannot be stepped, in an engine of turns: like pictures in one go."""

import threading
from collections.abc import Hashable, Sequence
from typing import Any

import msgspec
import pytest
from PIL import Image

from sdq.errors import Cancelled, OutOfMemory
from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, held
from sdq.testing.stepping import SteppingFake
from sdq.worker.engine import Engine
from sdq.worker.flight import Capacity, OnStep
from sdq.worker.whole import Whole, as_pipeline

WAIT_SECONDS = 10.0


class GroupFake(FakePipeline):
    """Draws pictures of one size in one go, two at most before its memory is full."""

    def __init__(self, *, most: int = 8) -> None:
        super().__init__()
        self.capacity = Capacity(pictures=4, area_pixels=10**9)
        self.most = most
        self.calls: list[list[int]] = []
        self.entered, self.opened = threading.Event(), threading.Event()

    def group_of(self, spec: ImageSpec) -> Hashable:
        return spec.width

    def draw_many(
        self, specs: Sequence[ImageSpec], on_steps: Sequence[OnStep]
    ) -> list[Image.Image | Exception]:
        self.entered.set()
        assert self.opened.wait(WAIT_SECONDS)
        if len(specs) > self.most:
            raise MemoryError("the fake device is full")
        self.calls.append([spec.seed for spec in specs])
        made: list[Image.Image | Exception] = []
        for spec, on_step in zip(specs, on_steps, strict=True):
            try:
                made.append(self.draw(spec, on_step))
            except Cancelled as error:
                made.append(error)
        return made


def drawn(pipeline: GroupFake, spec: ImageSpec, *, cancelled: int = -1) -> dict[int, list[int]]:
    """One picture, and while it is drawn four of two sizes arrive. The begun ones, by call."""
    engine = Engine([held(pipeline)])
    engine.start()
    begun: dict[int, list[int]] = {}

    def submit(seed: int, width: int = 64) -> Any:
        return engine.submit(
            msgspec.structs.replace(spec, seed=seed, width=width),
            on_step=lambda step, _: (
                begun.setdefault(len(pipeline.calls), []).append(seed) if not step else None
            ),
            is_cancelled=lambda: seed == cancelled and len(pipeline.calls) > 1,
        )

    futures = [submit(0)]
    assert pipeline.entered.wait(WAIT_SECONDS)
    futures += [submit(1), submit(2), submit(3, 128), submit(4)]
    pipeline.opened.set()
    for seed, future in enumerate(futures):
        if seed == cancelled:
            with pytest.raises(Cancelled):
                future.result(WAIT_SECONDS)
        else:
            assert future.result(WAIT_SECONDS)
    assert engine.close()
    return begun


def test_like_pictures_share_a_call_and_are_begun_with_it(spec: ImageSpec) -> None:
    pipeline = GroupFake()
    begun = drawn(pipeline, spec)
    assert pipeline.calls == [[0], [1, 2, 4], [3]]  # 4 passes 3, which could not join anyway
    assert begun == {0: [0], 1: [1, 2, 4], 2: [3]}


def test_one_of_them_is_cancelled(spec: ImageSpec) -> None:
    pipeline = GroupFake()
    drawn(pipeline, spec, cancelled=2)
    assert pipeline.calls[1] == [1, 2, 4]


def test_too_many_in_a_call_are_drawn_in_halves(spec: ImageSpec) -> None:
    pipeline = GroupFake(most=1)
    drawn(pipeline, spec)
    assert pipeline.calls == [[0], [1], [2], [4], [3]]
    pipeline = GroupFake(most=0)
    engine = Engine([held(pipeline)])
    pipeline.opened.set()
    engine.start()
    with pytest.raises(OutOfMemory):
        engine.submit(spec, on_step=lambda *_: None, is_cancelled=lambda: False).result(
            WAIT_SECONDS
        )
    assert engine.close()


def test_one_that_draws_single_pictures_takes_one_at_a_time() -> None:
    pipeline = as_pipeline(FakePipeline())
    assert isinstance(pipeline, Whole)
    assert pipeline.capacity.pictures == 1


def test_one_that_takes_turns_is_left_as_it_is() -> None:
    stepping = SteppingFake()
    assert as_pipeline(stepping) is stepping
