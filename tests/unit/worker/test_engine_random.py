"""Whatever comes, in whatever order: each picture ends, and the right ones are right."""

import random
import time
from concurrent.futures import CancelledError, Future
from unittest.mock import Mock

import msgspec
import pytest

from sdq.errors import Cancelled, OutOfMemory
from sdq.spec import ImageSpec
from sdq.testing.pipeline import picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker import loader, refusals, residency
from sdq.worker.engine import DrawnImage, Engine, GivenBack, NoPicture
from sdq.worker.flight import Capacity
from sdq.worker.holding import Holding

WAIT_SECONDS = 20.0
PICTURES = 80
MODELS = "abcd"
ENDS = (Cancelled, CancelledError, NoPicture, RuntimeError)
"""What those come to that are not innocent."""


class Storm:
    """Models that fit two at a time, one of them not always to be loaded; pictures of all sizes
    and ends."""

    def __init__(self, spec: ImageSpec, seed: int) -> None:
        self.spec, self.random = spec, random.Random(seed)
        self.cancelled: set[int] = set()
        self.innocent: dict[int, ImageSpec] = {}
        """Pictures that nothing should end."""
        self.pipelines = {
            name: SteppingFake(
                capacity=Capacity(self.random.randint(1, 6), 6 * 64 * 48),
                fits_pixels=self.random.choice([3, 20]) * 64 * 48,
                fail_on="unlucky",
                nan_on="nan",
                fail_turn_on="poison",
                begins_in_vain=self.random.randint(0, 4),
            )
            for name in MODELS
        }
        self.in_vain = sum(pipeline.begins_in_vain for pipeline in self.pipelines.values())
        self.engine = Engine(
            [Holding(name, lambda n=name: self._load(n), needs_bytes=5) for name in MODELS],  # type: ignore[misc]
            budget_bytes=self.random.choice([0, 5, 10]),
            keep_alive_seconds=self.random.choice([0.0, 0.005]),
            patience_seconds=0.02,
            max_waiting=PICTURES,
        )

    def _load(self, name: str) -> SteppingFake:
        if name != "a" and self.random.random() < 0.2:
            raise MemoryError("the fake device is full")
        return self.pipelines[name]

    def submit(self, seed: int) -> Future[DrawnImage]:
        side, words = self.random.choice([48, 64, 64, 96, 200]), ["cat"] * 8
        spec = msgspec.structs.replace(
            self.spec,
            model=self.random.choice(MODELS),
            width=side,
            height=side,
            seed=seed,
            num_inference_steps=self.random.randint(1, 9),
            prompt=self.random.choice([*words, "unlucky", "nan", "poison"]),
        )
        leaves_at = self.random.choice([None] * 6 + [0, 1, 3])

        def on_step(step: int, steps: int) -> None:
            if step == leaves_at:
                self.cancelled.add(seed)

        future = self.engine.submit(
            spec,
            on_step=on_step,
            is_cancelled=lambda: seed in self.cancelled,
            wants_preview=lambda: seed % 3 == 0,
        )
        is_taken_back = self.random.random() < 0.05
        if is_taken_back:
            future.cancel()
        fits = side**2 <= self.pipelines[spec.model].fits_pixels
        if spec.prompt == "cat" and leaves_at is None and fits and not is_taken_back:
            self.innocent[seed] = spec
        return future


@pytest.mark.parametrize("seed", range(4))
def test_each_picture_ends(spec: ImageSpec, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "LOOK_AGAIN_SECONDS", 0.005)
    monkeypatch.setattr(refusals, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(loader, "gc", Mock())  # the test's own objects are many
    storm = Storm(spec, seed)
    engine = storm.engine
    engine.start()
    engine.wait_ready(WAIT_SECONDS)
    futures: dict[int, Future[DrawnImage]] = {}
    for number in range(PICTURES):
        try:
            futures[number] = storm.submit(number)
        except GivenBack:
            continue  # its model could not be loaded
        if storm.random.random() < 0.1:
            time.sleep(0.002)
    drawn = full = 0
    reasons: set[str] = set()
    for number, future in futures.items():
        try:
            image = future.result(WAIT_SECONDS).image
        except GivenBack as error:
            reasons.add(error.message)
        except OutOfMemory:
            full += number in storm.innocent
        except ENDS:
            assert number not in storm.innocent
        else:
            drawn += 1
            if number in storm.innocent:
                assert image.tobytes() == picture_of(storm.innocent[number]).tobytes()
    assert drawn
    assert all("memory" in reason or "loaded" in reason for reason in reasons)
    assert full <= storm.in_vain
    assert engine.broken == ""
    assert engine.submit(
        msgspec.structs.replace(spec, model="a"), on_step=lambda *_: None, is_cancelled=bool
    ).result(WAIT_SECONDS)
    assert engine.close()
