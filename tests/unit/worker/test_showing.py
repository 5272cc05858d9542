"""Small JPEGs, one at a time, no more than a line can bear."""

import io
import random

import pytest
from PIL import Image

from sdq.broker import MAX_PREVIEW_BYTES
from sdq.testing.rig import Clock
from sdq.worker import showing
from sdq.worker.showing import Allowance, Showing, jpeg_of
from sdq.worker.watch import Watch

SMALL = Image.new("RGB", (16, 16), (200, 30, 30))


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(1).randbytes(3 * width * height))


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((16, 16), (64, 64)),
        ((8, 6), (32, 24)),
        ((32, 24), (64, 48)),
        ((64, 64), (64, 64)),
        ((128, 96), (128, 96)),
        ((512, 256), (128, 64)),
        ((1, 1), (4, 4)),
    ],
)
def test_something_to_look_at(size: tuple[int, int], shown: tuple[int, int]) -> None:
    data = jpeg_of(Image.new("RGB", size, (200, 30, 30)))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", shown)
        colour = image.getpixel((0, 0))
    assert isinstance(colour, tuple)
    assert max(abs(a - b) for a, b in zip(colour, (200, 30, 30), strict=True)) <= 5


def test_noise_is_made_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < len(jpeg_of(noise(128, 128))) <= MAX_PREVIEW_BYTES
    monkeypatch.setattr(showing, "MAX_PREVIEW_BYTES", 8_000)
    assert 0 < len(jpeg_of(noise(128, 128))) <= 8_000
    monkeypatch.setattr(showing, "MAX_PREVIEW_BYTES", 100)
    assert jpeg_of(noise(128, 128)) == b""


def test_the_allowance_is_made_up_for_and_not_saved_up() -> None:
    clock = Clock()
    allowance = Allowance(1_000, clock)
    assert allowance.has_room
    allowance.take(1_500)
    assert not allowance.has_room
    clock.now += 0.4
    assert not allowance.has_room
    clock.now += 0.2
    assert allowance.has_room
    clock.now += 3_600
    assert allowance.has_room
    allowance.take(1_000)
    assert not allowance.has_room


class Job:
    """A picture of so many steps, as its engine and its thread see it."""

    def __init__(self, steps: int = 20, bytes_per_second: float = 1e6) -> None:
        self.clock, self.watch = Clock(), Watch()
        self.allowance = Allowance(bytes_per_second, self.clock)
        self.showing = Showing(self.watch, steps, self.allowance, self.clock)

    def turn(self, seconds: float) -> bool:
        """A step of the engine, which makes a preview if it is asked; whether it was sent."""
        for _ in range(2):  # its thread wakes now and then during a slow one
            self.clock.now += seconds / 2
            self.showing.ask()
        self.watch.on_step(self.watch.step + 1, 20)
        if self.watch.wants_preview():
            self.watch.on_preview(SMALL)
        return bool(self.showing.newest())


def test_nobody_asks_and_nothing_is_made() -> None:
    job = Job()
    assert [job.turn(1.0) for _ in range(3)] == [False] * 3


def test_slow_steps_are_all_shown() -> None:
    job = Job()
    job.showing.is_wanted = True
    assert [job.turn(10.0) for _ in range(4)] == [True] * 4


def test_quick_steps_are_shown_five_times_a_second() -> None:
    job = Job()
    job.showing.is_wanted = True
    shown = [job.turn(0.05) for _ in range(20)]
    assert shown[0]
    assert 4 <= sum(shown) <= 5


def test_of_many_steps_some_are_shown() -> None:
    job = Job(steps=100)
    job.showing.is_wanted = True
    assert [number for number in range(20) if job.turn(10.0)] == [0, 5, 10, 15]


def test_a_busy_line_holds_previews_back() -> None:
    job = Job(bytes_per_second=100)
    job.showing.is_wanted = True
    size = len(jpeg_of(SMALL))
    shown = [job.turn(1.0) for _ in range(100)]
    assert 0 < sum(shown) * size <= 100 * 100 + 2 * size


def test_a_wish_that_ends_is_taken_back() -> None:
    job = Job()
    job.showing.is_wanted = True
    job.showing.ask()
    job.showing.is_wanted = False
    assert not job.turn(1.0)


def test_a_preview_that_cannot_be_encoded_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(image: Image.Image) -> bytes:
        raise OSError("no encoder")

    monkeypatch.setattr(showing, "jpeg_of", failing)
    job = Job()
    job.showing.is_wanted = True
    assert not job.turn(1.0)
