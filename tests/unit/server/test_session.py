"""A session's own decisions; what it does on the wire is in tests/integration/server."""

from types import SimpleNamespace
from typing import Any

import pytest

from sdq.errors import LocalProtocolError, ServerLeaving
from sdq.protocol.constants import WRITE_TIMEOUT_SECONDS
from sdq.protocol.job_messages import CancelJobs
from sdq.protocol.messages import Cancel, ErrorReply, ListModels, Pong, Removed
from sdq.server.outboxes import Outboxes
from sdq.server.queue.previews import MAX_BEHIND_BYTES
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


class Wire:
    """A stream that takes some answers and not others."""

    peer, local_host, silent_seconds, unread_bytes = "10.0.0.1:1", "127.0.0.1", 0.0, 0

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        if isinstance(message, Removed):
            raise LocalProtocolError("a frame of 99 bytes, the limit is 9")
        self.sent.append(message)

    def send_error(self, reply: ErrorReply) -> None:
        self.sent.append(reply)


def test_an_answer_that_is_too_large_is_said_so_that_nobody_waits_for_it():
    wire: Any = Wire()
    nothing: Any = SimpleNamespace()
    session = Session(wire, nothing, nothing, LIMITS, Outboxes())
    session.send(Removed(7, 1, 1))
    (reply,) = wire.sent
    assert (reply.request_id, "the limit is 9" in reply.message) == (7, True)


def test_a_reader_with_much_unread_is_behind():
    wire: Any = Wire()
    nothing: Any = SimpleNamespace()
    session = Session(wire, nothing, nothing, LIMITS, Outboxes())
    assert not session.is_behind
    wire.unread_bytes = MAX_BEHIND_BYTES + 1
    assert session.is_behind


def test_after_taking_leave_nothing_more_is_said():
    wire: Any = Wire()
    nothing: Any = SimpleNamespace()
    session = Session(wire, nothing, nothing, LIMITS, Outboxes())
    assert session.identity == "10.0.0.1"
    session.send(Pong(1))
    session.dismiss(ServerLeaving("the server is stopping", hint="come back"))
    session.send(Pong(2))
    assert [type(message) for message in wire.sent] == [Pong, ErrorReply]
    leave = wire.sent[-1]
    assert (leave.request_id, leave.code, leave.hint) == (None, "leaving", "come back")


@pytest.mark.parametrize("ends_others", [Cancel(7, target=1), CancelJobs(7, all_mine=True)])
def test_what_ends_others_has_room_of_its_own_but_not_without_bound(ends_others: Any):
    wire: Any = Wire()
    nothing: Any = SimpleNamespace()
    session = Session(wire, nothing, nothing, LIMITS, Outboxes())
    most = LIMITS.max_requests_in_flight
    session.requests = dict.fromkeys(range(1_000, 1_000 + most), nothing)
    session._take(ListModels(7))
    (refused,) = wire.sent
    assert (refused.request_id, refused.code) == (7, "busy")
    session._check_room(7, ends_others=True)
    session.requests |= dict.fromkeys(range(5_000, 5_000 + most), nothing)
    session._take(ends_others)
    assert [reply.code for reply in wire.sent] == ["busy"] * 2
