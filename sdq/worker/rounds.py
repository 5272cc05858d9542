"""Whose turn it is: pictures by group, in fair rounds, no more at once than there is room for."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from sdq.worker.flight import Capacity


class Grouped(Protocol):
    @property
    def group(self) -> Hashable: ...

    @property
    def area_pixels(self) -> int: ...


T = TypeVar("T", bound=Grouped)
R = TypeVar("R")


class Rounds(Generic[T]):
    """Groups take turns, each as often as any other; so do the members of a group that is too
    large for one turn. A new group comes at the end of the round, a new member at its group's
    next turn, so neither can starve those that are there.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._groups: dict[Hashable, list[T]] = {}  # in the order of their turns

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
        area = area_pixels + sum(item.area_pixels for item in self)
        return len(self) < self.capacity.pictures and area <= self.capacity.area_pixels

    def shrink(self, failed: Sequence[T]) -> bool:
        """These were too much at once: from now on at most half of their area is.

        False when that changes nothing.
        """
        area = sum(item.area_pixels for item in failed) // 2
        if len(failed) < 2 or area >= self.capacity.area_pixels:
            return False
        self.capacity = Capacity(self.capacity.pictures, area)
        return True

    def _fitting(self, members: Sequence[T]) -> int:
        area = count = 0
        for item in members[: max(1, self.capacity.pictures)]:
            area += item.area_pixels
            if count and area > self.capacity.area_pixels:
                break
            count += 1
        return count


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
