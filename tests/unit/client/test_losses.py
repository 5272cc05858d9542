"""Which errors of a connection may be over after a while."""

import pytest

from sdq.client.losses import HungUp, may_pass
from sdq.errors import (
    ConnectionFailed,
    NotAllowed,
    ProtocolError,
    ProtocolMismatch,
    SdqError,
    ServerBusy,
    ServerLeaving,
)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        (ConnectionFailed, True),
        (ServerLeaving, True),
        (HungUp, True),
        (ServerBusy, True),
        (ProtocolError, True),
        (ProtocolMismatch, False),
        (NotAllowed, False),
    ],
)
def test_what_may_pass(kind: type[SdqError], passes: bool) -> None:
    assert may_pass(kind("lost")) is passes
