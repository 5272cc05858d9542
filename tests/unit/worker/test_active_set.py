"""How many at once: what figures say, and how they are come by on devices of all kinds."""

from collections.abc import Callable, Mapping

import pytest

from sdq.worker.active_set import MOST_PICTURES, TURNS, Sizes, largest_useful, measure


@pytest.mark.parametrize(
    ("turn_seconds", "useful"),
    [
        ({}, 1),
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4}, 8),  # it still pays
        ({1: 1.0, 2: 1.2, 4: 1.6, 8: 3.2, 16: 6.4}, 4),  # flat from four on
        ({1: 1.0, 2: 1.9}, 2),  # just enough
        ({1: 1.0, 2: 1.92}, 1),
        ({1: 1.0, 2: 2.5}, 1),  # dearer together
        ({1: 1.0, 2: 1.2, 4: 2.4, 8: 3.2}, 8),  # a gain that comes in a jump
        ({1: 1.0, 2: 1.0, 4: 1.94, 8: 3.76}, 2),  # two doublings that gain 6 % together
    ],
)
def test_the_largest_size_that_pays(turn_seconds: Mapping[int, float], useful: int) -> None:
    assert largest_useful(turn_seconds) == useful


class Bench:
    """A device whose turns take as long as ``cost`` says; its clock is ours."""

    def __init__(self, cost: Callable[[int, int], float], seconds: float = 60.0) -> None:
        self._cost = cost
        self._seconds = seconds
        self.now = 0.0
        self.turns: list[int] = []

    def turn(self, pictures: int) -> None:
        self.turns.append(pictures)
        self.now += self._cost(pictures, len(self.turns))

    def measured(
        self,
        most: int = MOST_PICTURES,
        fits: Callable[[int], bool] = lambda pictures: True,
    ) -> Sizes:
        return measure(
            self.turn,
            seconds_left=lambda: self._seconds - self.now,
            fits=fits,
            most=most,
            clock=lambda: self.now,
        )


def saturating(pictures: int, number: int) -> float:
    """Up to four cost the same, more than that each as much as the others."""
    return 0.01 * max(1.0, pictures / 4)


def test_larger_sizes_are_tried_until_they_do_not_pay() -> None:
    bench = Bench(saturating)
    found = bench.measured()
    assert found.turn_seconds == pytest.approx({1: 0.01, 2: 0.01, 4: 0.01, 8: 0.02, 16: 0.04})
    assert not found.is_cut
    assert largest_useful(found.turn_seconds) == 4
    assert len(bench.turns) == 2 * TURNS * 5  # a quiet machine needs two rounds


def test_waiting_for_other_programs_does_not_count() -> None:
    """From two on, each turn is held up, which costs no work; one alone works with two threads."""
    bench = Bench(lambda pictures, number: saturating(pictures, number) * min(5, pictures))
    worked = 0.0

    def turn(pictures: int) -> None:
        nonlocal worked
        bench.turn(pictures)
        worked += saturating(pictures, 0) * (2 if pictures == 1 else 1)

    found = measure(
        turn, seconds_left=lambda: 60.0, clock=lambda: bench.now, work_clock=lambda: worked
    )
    assert found.turn_seconds == pytest.approx({1: 0.01, 2: 0.01, 4: 0.01, 8: 0.02, 16: 0.04})


def test_preparing_takes_no_part_in_the_time() -> None:
    bench = Bench(saturating)

    def prepare(pictures: int) -> None:
        bench.now += 0.5

    found = measure(
        bench.turn, seconds_left=lambda: 60.0, prepare=prepare, most=2, clock=lambda: bench.now
    )
    assert found.turn_seconds == pytest.approx({1: 0.01, 2: 0.01})


def test_what_always_pays_ends_at_the_limit() -> None:
    assert max(Bench(lambda pictures, number: 0.01).measured().turn_seconds) == MOST_PICTURES
    assert max(Bench(lambda pictures, number: 0.01).measured(most=4).turn_seconds) == 4
    assert Bench(saturating).measured(most=1).turn_seconds == {1: pytest.approx(0.01)}


def test_a_disturbed_visit_is_made_good() -> None:
    """Another program takes the processor while two, four and eight are tried first."""

    def cost(pictures: int, number: int) -> float:
        return saturating(pictures, number) * (20 if TURNS < number <= 4 * TURNS else 1)

    found = Bench(cost).measured()
    assert largest_useful(found.turn_seconds) == 4


def test_a_machine_that_is_never_quiet_does_not_keep_us() -> None:
    bench = Bench(lambda pictures, number: saturating(pictures, number) * 100 / number, 1e9)
    bench.measured()
    assert len(bench.turns) < 200


def test_long_turns_are_not_repeated() -> None:
    bench = Bench(lambda pictures, number: 2.0)
    bench.measured(most=4)
    assert bench.turns == [1, 1, 2, 2, 4, 4]


def test_a_slow_device_is_asked_for_little() -> None:
    bench = Bench(lambda pictures, number: 40.0 * pictures)
    found = bench.measured()
    assert found == Sizes({1: 40.0}, is_cut=True)
    assert bench.turns == [1]


def test_a_dear_size_that_does_not_pay_is_the_last() -> None:
    bench = Bench(lambda pictures, number: 2.0 * pictures)
    assert set(bench.measured().turn_seconds) == {1, 2}


def test_sizes_that_are_compiled_first_do_not_pass_the_time() -> None:
    """The first turn of each size takes half a minute."""
    seen: set[int] = set()

    def cost(pictures: int, number: int) -> float:
        first = pictures not in seen
        seen.add(pictures)
        return 25.0 if first else 0.01

    bench = Bench(cost)
    found = bench.measured()
    assert set(found.turn_seconds) == {1}
    assert found.is_cut
    assert bench.now < 60


def test_without_time_nothing_is_measured() -> None:
    bench = Bench(saturating, seconds=0.0)
    assert bench.measured() == Sizes({}, is_cut=True)
    assert bench.turns == []


@pytest.mark.parametrize("error", [MemoryError("full"), RuntimeError("no kernel")])
def test_a_size_that_fails_ends_it_with_a_margin(error: Exception) -> None:
    def cost(pictures: int, number: int) -> float:
        if pictures >= 16:
            raise error
        return 0.01

    bench = Bench(cost)
    found = bench.measured()
    assert set(found.turn_seconds) == {1, 2, 4}  # eight succeeded, barely
    assert not found.is_cut
    assert bench.turns.count(16) == 1


def test_two_that_do_not_fit_leave_one() -> None:
    def cost(pictures: int, number: int) -> float:
        if pictures > 1:
            raise MemoryError("full")
        return 0.01

    assert Bench(cost).measured() == Sizes({1: pytest.approx(0.01)}, is_cut=False)


def test_what_would_not_fit_is_not_tried() -> None:
    bench = Bench(lambda pictures, number: 0.01)
    found = bench.measured(fits=lambda pictures: pictures <= 4)
    assert set(found.turn_seconds) == {1, 2, 4}
    assert not found.is_cut
    assert max(bench.turns) == 4


def test_a_single_picture_that_fails_is_heard_of() -> None:
    def cost(pictures: int, number: int) -> float:
        raise MemoryError("full")

    with pytest.raises(MemoryError):
        Bench(cost).measured()
