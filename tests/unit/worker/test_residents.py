"""Who comes into memory, who leaves for it, and whose turn it is: with a clock by hand."""

from concurrent.futures import Future

import msgspec
import pytest

from sdq.spec import ImageSpec
from sdq.testing.stepping import SteppingFake
from sdq.worker.holding import Holding
from sdq.worker.picture import Order
from sdq.worker.residents import Change, Resident, Residents, Wish
from sdq.worker.turns import Turns

PATIENCE = 3.0


class Scene:
    """Models with their needs in bytes, and a budget."""

    def __init__(self, spec: ImageSpec, budget: int = 0, keep_alive: float = 0.0, **needs: int):
        self.spec, self.now = spec, 1000.0
        self.holdings = {
            name: Holding(name, SteppingFake, needs_bytes=need) for name, need in needs.items()
        }
        self.residents = Residents(
            list(self.holdings.values()),
            budget_bytes=budget,
            keep_alive_seconds=keep_alive,
            patience_seconds=PATIENCE,
            clock=lambda: self.now,
        )
        self.wanted: set[str] = set()

    def load(self, *names: str, load_seconds: float = 0.0) -> None:
        for name in names:
            pipeline = SteppingFake()
            turns = Turns(pipeline, is_closing=lambda: False, on_drawn=lambda seconds: None)
            self.residents.add(self.holdings[name], pipeline, turns, load_seconds)

    def begin(self, *names: str) -> None:
        """A picture of each is under way."""
        for name in names:
            spec = msgspec.structs.replace(self.spec, model=name)
            order = Order(spec, lambda *_: None, lambda: False, Future())
            assert self.residents[name].turns.begin(order) == []

    def finish(self, *names: str) -> None:
        for name in names:
            resident = self.residents[name]
            while len(resident.turns):
                resident.turns.turn()
            self.residents.spent(resident, 0.0)

    def change(self, *wishes: str | Wish, waited: float = 0.0) -> Change | None:
        """With these waiting, each a moment longer than the next one."""
        made = [
            wish if isinstance(wish, Wish) else Wish(wish, self.now - waited + 0.001 * number)
            for number, wish in enumerate(wishes)
        ]
        return self.residents.change(made, self.wanted)

    @property
    def leaving(self) -> set[str]:
        return {resident.model_id for resident in self.residents if resident.must_leave}

    def turns(self, count: int, **seconds: float) -> str:
        """Whose turns come next, when a turn of each model takes so long."""
        names = ""
        for _ in range(count):
            resident = self.residents.next_turn()
            assert resident is not None
            names += resident.model_id
            self.residents.spent(resident, seconds.get(resident.model_id, 1.0))
        return names


def test_without_a_limit_all_come_and_nobody_leaves(spec: ImageSpec) -> None:
    scene = Scene(spec, a=0, b=9, c=0)
    scene.load("a")
    scene.begin("a")
    assert scene.change("b") == Change((), "b")
    scene.load("b")
    assert scene.change("c") == Change((), "c")
    assert scene.residents.loaded == ("a", "b")
    assert scene.change() is None


def test_one_that_fits_comes_and_one_alone_always_does(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=6, b=4, c=99)
    assert scene.change("c") == Change((), "c")
    scene.load("a")
    scene.begin("a")
    assert scene.change("b") == Change((), "b")


def test_of_unknown_size_it_is_alone(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=1, b=0)
    scene.load("a")
    assert scene.change("b") == Change(("a",), "b")


def test_the_idle_one_that_worked_least_recently_leaves(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=3, b=3, c=3, d=3)
    scene.load("a", "b", "c")
    for name in "bca":
        scene.now += 1
        scene.begin(name)
        scene.finish(name)
    assert scene.change("d") == Change(("b",), "d")
    scene.begin("b")  # it works, however long it will
    assert scene.change("d") == Change(("c",), "d")
    scene.wanted = {"c"}  # somebody waits for it: it works too
    assert scene.change("d") == Change(("a",), "d")


def test_no_more_leave_than_must(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=1, b=8, c=8)
    scene.load("a")
    scene.now += 1
    scene.load("b")
    assert scene.change("c") == Change(("b",), "c")  # a is older, but small


def test_the_one_that_works_is_preferred_until_patience_ends(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=8, b=8)
    scene.load("a")
    scene.begin("a")
    scene.now += 100
    assert scene.change("b", waited=PATIENCE - 0.1) is None
    assert scene.leaving == set()
    assert scene.change("b", waited=PATIENCE) is None
    assert scene.leaving == {"a"}
    assert scene.residents.expected == "b"
    scene.finish("a")
    scene.wanted = {"a"}  # those that wait for it wait on
    assert scene.change("b", waited=PATIENCE) == Change(("a",), "b")
    assert scene.residents.remove(["a"])[0][0].model_id == "a"
    assert scene.residents.loaded == ()


def test_whoever_has_just_come_has_its_time_too(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=8, b=8)
    scene.load("a")
    scene.begin("a")
    scene.now += PATIENCE - 0.1
    assert scene.change("b", waited=100.0) is None
    assert scene.leaving == set()
    scene.now += 0.2
    scene.change("b", waited=100.0)
    assert scene.leaving == {"a"}


def test_a_wish_that_is_taken_back_lets_the_others_stay(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=8, b=8)
    scene.load("a")
    scene.begin("a")
    scene.now += 100
    scene.change("b", waited=PATIENCE)
    assert scene.leaving == {"a"}
    assert scene.change() is None
    assert scene.leaving == set()


def test_patience_grows_with_what_loading_takes(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=8, b=8)
    scene.load("a", load_seconds=2.0)
    scene.begin("a")
    scene.now += 100
    scene.change("b", waited=9.9)
    assert scene.leaving == set()
    scene.change("b", waited=10.0)
    assert scene.leaving == {"a"}


def test_the_one_that_must_leave_stays_the_same_while_it_finishes(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=5, b=5, c=5)
    scene.load("a")
    scene.now += 1
    scene.load("b")
    scene.begin("a", "b")
    scene.now += 100
    for last in "ab" * 3:
        scene.residents.spent(scene.residents[last], 1.0)
        scene.now += 1
        scene.change("c", waited=50.0)
        assert scene.leaving == {"a"}


def test_who_has_waited_comes_before_those_that_came_later(spec: ImageSpec) -> None:
    scene = Scene(spec, budget=10, a=5, big=10, small=5)
    scene.load("a")
    scene.begin("a")
    assert scene.change("big", "small") == Change((), "small")  # no harm done yet
    scene.now += 100
    assert scene.change("big", "small", waited=PATIENCE) is None
    assert scene.leaving == {"a"}
    scene.load("small")  # as if it had come just before: it has its time too
    scene.begin("small")
    assert scene.change("big", waited=PATIENCE) is None
    assert scene.leaving == set()


def test_a_picture_without_memory_lets_the_others_leave(spec: ImageSpec) -> None:
    scene = Scene(spec, a=1, b=1, c=1)
    scene.load("a", "b")
    scene.begin("a")
    wish = Wish("a", scene.now, alone=True)
    assert scene.change(wish) == Change(("b",), "")
    scene.residents.remove(["b"])
    assert scene.change(wish) is None  # it has all there is
    assert scene.change(Wish("c", scene.now, alone=True)) is None  # a works
    scene.finish("a")
    assert scene.change(Wish("c", scene.now, alone=True)) == Change(("a",), "c")


def test_idle_ones_leave_after_a_while(spec: ImageSpec) -> None:
    scene = Scene(spec, keep_alive=60.0, a=1, b=1)
    assert scene.residents.expiry_seconds() is None
    scene.load("a")
    scene.now += 20
    scene.load("b")
    assert scene.residents.expiry_seconds() == 40
    scene.now += 41
    assert scene.residents.expiry_seconds() == 0
    scene.wanted = {"a"}
    assert scene.change() is None
    scene.wanted = set()
    assert scene.change() == Change(("a",), "")
    scene.residents.remove(["a"])
    scene.begin("b")
    scene.now += 100
    assert scene.residents.expiry_seconds() is None
    assert scene.change() is None
    assert Scene(spec, a=1).residents.expiry_seconds() is None


def test_turns_are_fair_in_time(spec: ImageSpec) -> None:
    scene = Scene(spec, a=0, b=0)
    scene.load("a", "b")
    assert scene.residents.next_turn() is None
    scene.begin("a", "b")
    assert scene.turns(6) == "ababab"
    assert sorted(scene.turns(8, a=3.0)) == list("aabbbbbb")


@pytest.mark.parametrize("pause", [10, 1000])
def test_time_without_work_is_not_owed(spec: ImageSpec, pause: int) -> None:
    scene = Scene(spec, a=0, b=0)
    scene.load("a", "b")
    scene.begin("a")
    assert scene.turns(pause) == "a" * pause
    scene.begin("b")
    assert sorted(scene.turns(4)) == list("aabb")


def test_a_new_one_begins_where_the_others_are(spec: ImageSpec) -> None:
    scene = Scene(spec, a=0, b=0)
    scene.load("a")
    scene.begin("a")
    scene.turns(50)
    scene.load("b")
    scene.begin("b")
    assert sorted(scene.turns(6)) == list("aaabbb")


def test_ids_and_members(spec: ImageSpec) -> None:
    scene = Scene(spec, a=0, b=0)
    scene.load("a")
    assert "a" in scene.residents
    assert "b" not in scene.residents
    assert len(scene.residents) == 1
    (resident,) = scene.residents
    assert isinstance(resident, Resident)
    assert resident.model_id == "a"
