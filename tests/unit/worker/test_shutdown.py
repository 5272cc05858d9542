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


@pytest.fixture
def ending(calls: list[str]) -> Iterator[Shutdown]:
    before = signal.getsignal(signal.SIGTERM)
    ending = Shutdown(lambda: calls.append("drop"), lambda: calls.append("tell"))
    with ending:
        yield ending
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_nothing_happens(ending: Shutdown, calls: list[str]) -> None:
    with ending.of(lambda: calls.append("stop")):
        pass
    assert (calls, ending.asked, ending.exit_code) == ([], False, 0)


def test_one_signal_stops(ending: Shutdown, calls: list[str], wait_for: Wait) -> None:
    with ending.of(lambda: calls.append(threading.current_thread().name)):
        signal.raise_signal(signal.SIGTERM)
        wait_for(lambda: len(calls) == 2)
    assert calls == ["tell", "sdq-shutdown"]
    assert (ending.asked, ending.exit_code) == (True, 0)


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
    assert ending.exit_code == 1


def test_the_terminal_and_the_supervisor_count_as_one(
    ending: Shutdown, calls: list[str], wait_for: Wait
) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    wait_for(lambda: "tell" in calls)
    assert "drop" not in calls


def test_patience_ends(calls: list[str], wait_for: Wait) -> None:
    ending = Shutdown(
        lambda: calls.append("drop"), lambda: calls.append("tell"), grace_seconds=0.01
    )
    with ending:
        signal.raise_signal(signal.SIGTERM)
        wait_for(lambda: "drop" in calls)
    assert ending.exit_code == 1
