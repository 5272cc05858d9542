"""An accelerator is at most one turn behind."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdq.worker.pace import Pace


def test_python_waits_for_the_turn_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Event:
        count = 0

        def __init__(self) -> None:
            Event.count += 1
            self.name = f"turn {Event.count}"

        def record(self, stream: Any) -> None:
            seen.append(f"{self.name} on {stream}")

        def synchronize(self) -> None:
            seen.append(f"waited for {self.name}")

    fake = SimpleNamespace(Event=Event, current_stream=lambda name: f"the stream of {name}")
    monkeypatch.setattr(torch, "cuda", fake)
    pace = Pace("cuda:1")
    pace.keep()
    assert seen == ["turn 1 on the stream of cuda:1"]
    pace.keep()
    pace.keep()
    assert seen[1:] == [
        "turn 2 on the stream of cuda:1",
        "waited for turn 1",
        "turn 3 on the stream of cuda:1",
        "waited for turn 2",
    ]


def test_a_cpu_is_done_when_python_is() -> None:
    pace = Pace("cpu")
    pace.keep()
    pace.keep()
