"""Whose turn it is: pictures by group, in fair rounds, no more at once than there is room for."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from sdq.worker.flight import Capacity


class Grouped(Protocol):
    @property
    def group(self) -> Hashable: ...

    @property
    def area_pixels(self) -> int: ...


T = TypeVar("T", bound=Grouped)
R = TypeVar("R")

GOOD_TURNS = 200
"""Turns as large as is allowed that go well before one more picture is tried."""

FORGIVEN_TURNS = 5_000
"""The same before a size is tried again that was too much."""


class Limit:
    """How much is worked on at once: what the device is known for, less what it had no memory for.

    What was too much is halved, or goes back to what went well just before. Then, slowly, a little
    more is tried: another program may have taken the memory, and given it back.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._most_pixels = capacity.area_pixels
        self._well_pixels = 0
        self._bad_pixels = 0  # the smallest area that was too much; 0: none
        self._turns = 0  # that went well since the limit changed

    def too_much(self, area_pixels: int) -> bool:
        """There was not enough memory for it. False when that changes nothing."""
        self._turns = 0
        self._bad_pixels = min(self._bad_pixels or area_pixels, area_pixels)
        if self._well_pixels >= area_pixels:  # once, but not any more
            self._well_pixels = 0
        less_pixels = max(area_pixels // 2, self._well_pixels)
        if less_pixels >= self.capacity.area_pixels:
            return False
        self.capacity = Capacity(self.capacity.pictures, less_pixels)
        return True

    def went_well(self, area_pixels: int, more_pixels: int) -> bool:
        """A turn of this area did, and one more would be ``more_pixels``. True when the limit
        grew."""
        limit_pixels = self.capacity.area_pixels
        if area_pixels > limit_pixels:
            return False  # a large one alone: it says nothing of how many fit
        self._well_pixels = max(self._well_pixels, area_pixels)
        if limit_pixels >= self._most_pixels or area_pixels + more_pixels <= limit_pixels:
            return False
        wanted_pixels = min(self._most_pixels, limit_pixels + more_pixels)
        self._turns += 1
        is_bad = 0 < self._bad_pixels <= wanted_pixels
        if self._turns < (FORGIVEN_TURNS if is_bad else GOOD_TURNS):
            return False
        if is_bad:
            self._bad_pixels = 0
        self._turns = 0
        self.capacity = Capacity(self.capacity.pictures, wanted_pixels)
        return True


class Rounds(Generic[T]):
    """Groups take turns, each as often as any other; so do the members of a group that is too
    large for one turn. A new group comes at the end of the round, a new member at its group's
    next turn, so neither can starve those that are there.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._limit = Limit(capacity)
        self._groups: dict[Hashable, list[T]] = {}  # in the order of their turns

    @property
    def capacity(self) -> Capacity:
        return self._limit.capacity

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def __iter__(self) -> Iterator[T]:
        """A snapshot: what it gives may be removed meanwhile."""
        return iter([item for members in self._groups.values() for item in members])

    def add(self, item: T) -> None:
        self._groups.setdefault(item.group, []).append(item)

    def remove(self, item: T) -> None:
        """Raises `ValueError` when it is not there."""
        members = self._groups.get(item.group, [])
        members.remove(item)
        if not members:
            del self._groups[item.group]

    def turn(self) -> list[T]:
        """Whoever is next: members of one group, as many as fit; empty when nobody is there."""
        if not self._groups:
            return []
        group = next(iter(self._groups))
        members = self._groups.pop(group)
        count = self._fitting(members)
        # All of them at once keep their order: what was stacked for them can be used again.
        self._groups[group] = members[count:] + members[:count]
        return members[:count]

    def has_room(self, area_pixels: int) -> bool:
        """Whether one more of this size may come in. Always true when nobody is there."""
        if not self._groups:
            return True
        area = area_pixels + _area(self)
        return len(self) < self.capacity.pictures and area <= self.capacity.area_pixels

    def shrink(self, failed: Sequence[T]) -> bool:
        """These were too much at once: from now on less is. False when that changes nothing."""
        return len(failed) > 1 and self._limit.too_much(_area(failed))

    def grow(self, done: Sequence[T]) -> bool:
        """A turn of these went well. True when more is tried from now on."""
        if not done:
            return False
        return self._limit.went_well(_area(done), min(item.area_pixels for item in done))

    def _fitting(self, members: Sequence[T]) -> int:
        area = count = 0
        for item in members[: max(1, self.capacity.pictures)]:
            area += item.area_pixels
            if count and area > self.capacity.area_pixels:
                break
            count += 1
        return count


def _area(items: Iterable[Grouped]) -> int:
    return sum(item.area_pixels for item in items)


def in_halves(
    act: Callable[[Sequence[T]], Sequence[R]],
    items: Sequence[T],
    on_full: Callable[[Sequence[T]], object],
) -> list[tuple[T, R | Exception]]:
    """``act`` on all at once; when it raises, on each half, and so on down to single ones.

    So one bad picture ends alone, and what is too much for the memory at once may succeed in
    parts. ``on_full`` hears of each set that was too large. Each item with its result, or with
    the error that it met alone.
    """
    if not items:
        return []
    try:
        return list(zip(items, act(items), strict=True))
    except Exception as error:  # noqa: BLE001 - each of them is to hear what ended it
        if len(items) == 1:
            return [(items[0], error)]
        if isinstance(error, MemoryError):
            on_full(items)
    middle = len(items) // 2
    return in_halves(act, items[:middle], on_full) + in_halves(act, items[middle:], on_full)
