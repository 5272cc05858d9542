"""Whose turn it is, and what fails in halves."""

from collections.abc import Sequence
from dataclasses import dataclass

from sdq.worker import rounds as module
from sdq.worker.flight import Capacity
from sdq.worker.rounds import Limit, Rounds, in_halves


@dataclass(eq=False)
class Item:
    name: str
    group: str = "a"
    area_pixels: int = 10


def rounds(*items: Item, pictures: int = 8, area: int = 1000) -> "Rounds[Item]":
    made: Rounds[Item] = Rounds(Capacity(pictures, area))
    for item in items:
        made.add(item)
    return made


def turns(of: "Rounds[Item]", count: int) -> list[str]:
    return ["".join(item.name for item in of.turn()) for _ in range(count)]


def test_groups_take_turns() -> None:
    made = rounds(Item("1"), Item("2"), Item("3", "b"), Item("4"))
    assert turns(made, 4) == ["124", "3", "124", "3"]


def test_a_new_group_waits_for_one_round_and_no_longer() -> None:
    made = rounds(Item("1"), Item("2", "b"))
    assert turns(made, 1) == ["1"]
    made.add(Item("3", "c"))
    assert turns(made, 4) == ["2", "1", "3", "2"]


def test_arrivals_of_one_group_cannot_starve_another() -> None:
    made = rounds(Item("1"), Item("2", "b"))
    seen = ""
    for number in range(6):
        seen += turns(made, 1)[0][0]
        made.add(Item(f"{number}"))
    assert seen == "121212"


def test_a_group_that_is_too_large_for_a_turn() -> None:
    made = rounds(*(Item(name) for name in "12345"), pictures=2)
    assert turns(made, 5) == ["12", "34", "51", "23", "45"]
    made = rounds(*(Item(name) for name in "123"), area=25)
    assert turns(made, 3) == ["12", "31", "23"]
    made = rounds(Item("1", area_pixels=99), Item("2"), area=25)
    assert turns(made, 3) == ["1", "2", "1"]


def test_room() -> None:
    made = rounds(pictures=2, area=25)
    assert made.has_room(99)  # one alone always
    first, second = Item("1"), Item("2")
    made.add(first)
    assert made.has_room(15)
    assert not made.has_room(16)
    made.add(second)
    assert not made.has_room(1)
    made.remove(first)
    assert len(made) == 1
    assert list(made) == [second]
    made.remove(second)
    assert made.turn() == []


def test_shrinking_goes_down_only() -> None:
    items = [Item(str(number)) for number in range(4)]
    made = rounds(*items)
    assert made.shrink(items)
    assert made.capacity.area_pixels == 20
    assert turns(made, 2) == ["01", "23"]
    assert not made.shrink(items)
    assert not made.shrink(items[:1])  # one alone says nothing of how many fit


def limit_after(limit: Limit, turns: int, area: int) -> int:
    for _ in range(turns):
        limit.went_well(area, 10)
    return limit.capacity.area_pixels


def test_a_limit_goes_back_to_what_went_well() -> None:
    limit = Limit(Capacity(8, 80))
    limit.went_well(60, 10)
    assert limit.too_much(70)
    assert limit.capacity == Capacity(8, 60)
    assert limit.too_much(60)  # not any more
    assert limit.capacity == Capacity(8, 30)
    assert not limit.too_much(70)


def test_a_limit_grows_slowly_and_only_where_it_was_reached() -> None:
    limit = Limit(Capacity(8, 80))
    assert limit_after(limit, 2 * module.GOOD_TURNS, 80) == 80  # it is no limit
    limit.too_much(80)
    limit.too_much(40)
    assert limit.capacity.area_pixels == 20
    assert limit_after(limit, 2 * module.GOOD_TURNS, 10) == 20
    assert limit_after(limit, 2 * module.GOOD_TURNS, 99) == 20  # a large one alone
    assert limit_after(limit, module.GOOD_TURNS - 1, 20) == 20
    assert limit_after(limit, 1, 20) == 30
    assert limit_after(limit, 2 * module.GOOD_TURNS, 30) == 30  # forty were too much


def test_what_was_too_much_is_tried_again_in_the_end() -> None:
    limit = Limit(Capacity(8, 80))
    limit.too_much(80)
    area = 40
    for larger in (50, 60, 70):
        area = limit_after(limit, module.GOOD_TURNS, area)
        assert area == larger
    assert limit_after(limit, module.FORGIVEN_TURNS - 1, 70) == 70
    assert limit_after(limit, 1, 70) == 80
    assert limit.too_much(80)
    assert limit.capacity.area_pixels == 70  # in vain: that costs one turn in many
    assert limit_after(limit, module.FORGIVEN_TURNS - 1, 70) == 70
    assert limit_after(limit, 1, 70) == 80


def test_halves_find_the_one_to_blame() -> None:
    calls: list[str] = []

    def act(names: Sequence[Item]) -> list[str]:
        calls.append("".join(item.name for item in names))
        if any(item.name == "x" for item in names):
            raise KeyError("x")
        return [item.name.upper() for item in names]

    found = in_halves(act, [Item(name) for name in "abxc"], lambda items: None)
    assert calls == ["abxc", "ab", "xc", "x", "c"]
    results = {item.name: result for item, result in found}
    assert isinstance(results.pop("x"), KeyError)
    assert results == {"a": "A", "b": "B", "c": "C"}
    assert in_halves(act, [], lambda items: None) == []


def test_halves_say_what_was_too_large() -> None:
    full: list[int] = []

    def act(names: Sequence[Item]) -> list[int]:
        if len(names) > 1:
            raise MemoryError
        return [1]

    found = in_halves(act, [Item(name) for name in "abcd"], lambda items: full.append(len(items)))
    assert [result for _, result in found] == [1, 1, 1, 1]
    assert full == [4, 2, 2]
