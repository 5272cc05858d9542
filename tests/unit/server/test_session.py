"""A session's own decisions; what it does on the wire is in tests/integration/server."""

from types import SimpleNamespace
from typing import Any

import pytest

from sdq.protocol.constants import WRITE_TIMEOUT_SECONDS
from sdq.server.outboxes import Outboxes
from sdq.server.session import Session
from sdq.testing.transport import LIMITS


class Line:
    """A stream that only remembers what was done to it."""

    peer, local_host = "127.0.0.1:1", "127.0.0.1"

    def __init__(self, silent_seconds: float) -> None:
        self.silent_seconds = silent_seconds
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.done.append(name)


@pytest.mark.parametrize(
    ("silent_seconds", "done"),
    [
        (LIMITS.idle_timeout_seconds - 1, []),
        (LIMITS.idle_timeout_seconds + 1, ["send_error", "hang_up"]),
        # Its outbox never empties, so hanging up alone would leave the connection for ever.
        (LIMITS.idle_timeout_seconds + WRITE_TIMEOUT_SECONDS + 1, ["abort"]),
    ],
)
def test_a_silent_client_is_told_and_then_cut_off(silent_seconds: float, done: list[str]):
    line: Any = Line(silent_seconds)
    nothing: Any = SimpleNamespace()
    Session(line, nothing, nothing, LIMITS, Outboxes()).end_if_silent()
    assert line.done == done
