"""What waits: bounded, by model, first come first served, and small ones may pass for a while."""

import threading
from concurrent.futures import Future

import msgspec
import pytest

from sdq.spec import ImageSpec
from sdq.worker import inbox
from sdq.worker.inbox import Inbox, Line
from sdq.worker.picture import Order


@pytest.fixture
def spec(spec: ImageSpec) -> ImageSpec:
    return msgspec.structs.replace(spec, width=8, height=8)


def order(spec: ImageSpec, **changes: object) -> Order:
    return Order(msgspec.structs.replace(spec, **changes), lambda *_: None, lambda: False, Future())


def test_each_model_has_a_line_and_all_together_are_bounded(spec: ImageSpec) -> None:
    box = Inbox(3)
    first, second, other = order(spec), order(spec), order(spec, model="other")
    assert all(box.put(one) for one in (first, second, other))
    assert not box.put(order(spec))
    assert box.waiting("shapes") == (first, second)
    assert box.waiting("other") == (other,)
    assert box.waiting("nobody") == ()
    box.take(second)
    assert box.waiting("shapes") == (first,)
    assert box.put(order(spec))


def test_what_was_taken_back_makes_room(spec: ImageSpec) -> None:
    box = Inbox(1)
    gone = order(spec)
    assert box.put(gone)
    gone.future.cancel()
    assert box.waiting("shapes") == ()
    assert box.put(order(spec))
    assert len(box.take_all()) == 1
    assert box.waiting("shapes") == ()


def test_what_another_thread_took_is_not_taken_twice(spec: ImageSpec) -> None:
    """The engine closes between the engine's look at who waits and its taking that one."""
    box = Inbox(2)
    one, other = order(spec), order(spec)
    assert box.put(one)
    assert box.put(other)
    assert box.take(one)
    assert not box.take(one)
    assert box.take_all() == [other]
    assert not box.take(other)
    assert box.put(one)
    assert box.waiting("shapes") == (one,)


def test_waiting_ends_with_news_even_if_they_came_before(spec: ImageSpec) -> None:
    box = Inbox(1)
    box.put(order(spec))
    box.wait(None)
    box.wake()
    box.wait(None)
    box.wait(0.001)  # nothing new: the time is over
    sleeper = threading.Thread(target=box.wait, args=(None,), daemon=True)
    sleeper.start()
    sleeper.join(0.02)
    assert sleeper.is_alive()
    box.wake()
    sleeper.join(10)
    assert not sleeper.is_alive()


class Room:
    """So much is free; whoever goes next takes some of it."""

    def __init__(self, *waiting: Order) -> None:
        self.line, self.waiting, self.free_pixels = Line(), list(waiting), 0

    def next(self, now_seconds: float = 0.0) -> Order | None:
        chosen = self.line.next(
            self.waiting, lambda order: order.area_pixels <= self.free_pixels, now_seconds
        )
        if chosen is not None:
            self.waiting.remove(chosen)
        return chosen


def test_first_come_first_served(spec: ImageSpec) -> None:
    orders = [order(spec) for _ in range(3)]
    room = Room(*orders)
    assert room.next() is None
    room.free_pixels = 64
    assert [room.next() for _ in range(4)] == [*orders, None]


def test_small_ones_pass_a_large_one_but_not_for_ever(spec: ImageSpec) -> None:
    large = order(spec, width=64)
    room = Room(large)
    room.free_pixels = 64
    passed = 0
    while passed <= inbox.MAX_PASSED:
        small = order(spec)
        room.waiting.append(small)
        if room.next() is not small:
            break
        passed += 1
    assert passed == inbox.MAX_PASSED
    room.free_pixels = 64 * 8
    assert room.next() is large
    assert room.next() is small  # and then all is as before
    room.waiting += [order(spec, width=128), small := order(spec)]
    assert room.next() is small


def test_a_large_one_is_passed_for_some_seconds_only(spec: ImageSpec) -> None:
    room = Room(order(spec, width=64), *(order(spec) for _ in range(2)))
    room.free_pixels = 64
    assert room.next(now_seconds=100.0)
    assert room.next(now_seconds=101.0 + inbox.MAX_PASSED_SECONDS) is None


def test_whoever_is_first_next_may_be_passed_anew(spec: ImageSpec) -> None:
    room = Room(*(order(spec, width=64) for _ in range(2)), order(spec))
    room.free_pixels = 64
    assert room.next() is not None
    room.waiting.pop(0)  # taken back
    room.waiting += [order(spec) for _ in range(inbox.MAX_PASSED)]
    assert all(room.next() is not None for _ in range(inbox.MAX_PASSED))
    room.waiting.append(order(spec))
    assert room.next() is None
