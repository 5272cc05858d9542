"""Speed and time left: smooth, bounded, and only of what has really arrived."""

import pytest

from sdq.worker.fetch import rate
from sdq.worker.fetch.rate import Rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_said_too_early(clock: Clock) -> None:
    speed = Rate(clock)
    assert speed.bytes_per_second() is None
    speed.note(0)
    clock.now += 0.5
    speed.note(10**9)
    assert speed.bytes_per_second() is None
    assert speed.seconds_left(10**9) is None


def test_a_steady_line(clock: Clock) -> None:
    speed = Rate(clock)
    for second in range(5):
        speed.note(second * 1_000)
        clock.now += 1
    assert speed.bytes_per_second() == pytest.approx(1_000)
    assert speed.seconds_left(6_000) == pytest.approx(6)
    assert speed.seconds_left(0) == 0


def test_a_line_that_stalls_and_one_that_slows_are_seen(clock: Clock) -> None:
    speed = Rate(clock)
    for second in range(60):
        speed.note(second * 1_000_000 if second < 30 else 30_000_000 + (second - 30) * 1_000)
        clock.now += 1
    assert speed.bytes_per_second() == pytest.approx(1_000)
    for _ in range(20):
        speed.note(30_029_000)
        clock.now += 1
    assert speed.bytes_per_second() == 0
    assert speed.seconds_left(10**9) is None


def test_many_looks_take_no_more_memory(clock: Clock) -> None:
    speed = Rate(clock)
    for number in range(10_000):
        speed.note(number)
        clock.now += 0.01
    assert len(speed._looks) <= rate.WINDOW_SECONDS / rate.SAMPLE_SECONDS + 2
    assert speed.bytes_per_second() == pytest.approx(100, rel=0.05)
