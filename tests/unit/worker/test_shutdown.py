"""Signals: the first one ends politely, the second one drops, two at once count as one."""

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from sdq.worker import shutdown
from sdq.worker.shutdown import Shutdown

Wait = Callable[[Callable[[], object]], None]


@pytest.fixture
def calls() -> list[str]:
    return []


def make(calls: list[str], *, drain_seconds: float = 60.0) -> Shutdown:
    def note(word: str) -> Callable[[], None]:
        return lambda: calls.append(word)

    return Shutdown(note("drain"), note("drop"), note("tell"), drain_seconds=drain_seconds)


@pytest.fixture
def ending(calls: list[str]) -> Iterator[Shutdown]:
    before = signal.getsignal(signal.SIGTERM)
    ending = make(calls)
    with ending:
        yield ending
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_nothing_happens(ending: Shutdown, calls: list[str]) -> None:
    with ending.of(lambda: calls.append("stop")):
        pass
    assert (calls, ending.asked) == ([], False)


def test_one_signal_drains_and_stops(ending: Shutdown, calls: list[str], wait_for: Wait) -> None:
    with ending.of(lambda: calls.append(threading.current_thread().name)):
        signal.raise_signal(signal.SIGTERM)
        wait_for(lambda: len(calls) == 3)
    assert calls == ["drain", "tell", "sdq-shutdown"]
    assert ending.asked


def test_the_worker_may_ask_itself(ending: Shutdown, calls: list[str], wait_for: Wait) -> None:
    with ending.of(lambda: calls.append("stop")):
        threading.Thread(target=ending.ask).start()
        wait_for(lambda: "stop" in calls)
        ending.ask()  # again: nothing more
    assert calls == ["drain", "tell", "stop"]


def test_a_signal_that_came_before(ending: Shutdown, calls: list[str], wait_for: Wait) -> None:
    signal.raise_signal(signal.SIGINT)
    with ending.of(lambda: calls.append("stop")):
        wait_for(lambda: "stop" in calls)


def test_a_second_signal_drops(
    ending: Shutdown, calls: list[str], wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "SAME_SIGNAL_SECONDS", 0.0)
    signal.raise_signal(signal.SIGTERM)
    wait_for(lambda: "tell" in calls)
    signal.raise_signal(signal.SIGTERM)
    wait_for(lambda: "drop" in calls)


def test_the_terminal_and_the_supervisor_count_as_one(
    ending: Shutdown, calls: list[str], wait_for: Wait
) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    wait_for(lambda: "tell" in calls)
    assert "drop" not in calls


def test_patience_ends(calls: list[str], wait_for: Wait) -> None:
    with make(calls, drain_seconds=0.01):
        signal.raise_signal(signal.SIGTERM)
        wait_for(lambda: "drop" in calls)
    assert calls == ["drain", "tell", "drop"]
