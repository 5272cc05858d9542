"""What waits to be begun: orders by model, in the order of their coming, and who goes next."""

import threading
from collections.abc import Callable, Sequence

from sdq.worker.picture import Order

MAX_PASSED = 8
"""Orders that may pass one that waits for room."""

MAX_PASSED_SECONDS = 10.0
"""For so long may one that waits for room be passed."""


class Inbox:
    """Between the threads that submit and the engine's, which alone takes orders out."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._lines: dict[str, list[Order]] = {}
        self._count = 0
        self._news = False
        self._changed = threading.Condition(threading.Lock())

    def put(self, order: Order) -> bool:
        """False when it is full."""
        with self._changed:
            if self._count >= self.max_waiting:
                return False
            self._count += 1
            self._lines.setdefault(order.spec.model, []).append(order)
            self._news = True
            self._changed.notify()
        return True

    def wake(self) -> None:
        """Ends the present `wait`, or the next one."""
        with self._changed:
            self._news = True
            self._changed.notify()

    def wait(self, timeout_seconds: float | None) -> None:
        """Sleeps until something came since the last time, or the time is over."""
        with self._changed:
            if not self._news:
                self._changed.wait(timeout_seconds)
            self._news = False

    def waiting(self, model_id: str) -> tuple[Order, ...]:
        """Whoever waits for this model, the oldest first. Those taken back are dropped."""
        if model_id not in self._lines:
            return ()
        with self._changed:
            all_of_them = self._lines.get(model_id, [])
            line = [order for order in all_of_them if not order.future.cancelled()]
            self._count += len(line) - len(all_of_them)
            self._keep(model_id, line)
            return tuple(line)

    def take(self, order: Order) -> bool:
        """This one waits no longer. False when it is gone: `take_all` came first, in another
        thread, and what it took is that thread's to end."""
        with self._changed:
            line = self._lines.get(order.spec.model, [])
            if order not in line:
                return False
            self._count -= 1
            self._keep(order.spec.model, [other for other in line if other is not order])
            return True

    def take_all(self) -> list[Order]:
        """Empties it."""
        with self._changed:
            orders = [order for line in self._lines.values() for order in line]
            self._lines.clear()
            self._count = 0
            return orders

    def _keep(self, model_id: str, line: list[Order]) -> None:
        if line:
            self._lines[model_id] = line
        else:
            self._lines.pop(model_id, None)


class Line:
    """Who of one model's orders goes next: the first one that came. While there is no room for
    it, smaller ones may pass, but only some and for some time: then all wait until it has room.
    """

    def __init__(self) -> None:
        self._first: Order | None = None
        self._passed = 0
        self._held_since_seconds = 0.0

    def next(
        self, waiting: Sequence[Order], has_room: Callable[[Order], bool], now_seconds: float
    ) -> Order | None:
        """The one that is to be begun now; it must be taken out of ``waiting`` then."""
        if not waiting or has_room(waiting[0]):
            self._first = None
            return waiting[0] if waiting else None
        first = waiting[0]
        if first is not self._first:
            self._first, self._passed, self._held_since_seconds = first, 0, now_seconds
        held_seconds = now_seconds - self._held_since_seconds
        if self._passed >= MAX_PASSED or held_seconds > MAX_PASSED_SECONDS:
            return None
        for order in waiting[1:]:
            if has_room(order):
                self._passed += 1
                return order
        return None
