"""What could not be loaded is left alone for a while, longer each time."""

import pytest

from sdq.errors import ModelError
from sdq.worker.refusals import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Refusals, is_full


def test_a_pause_that_grows_and_ends() -> None:
    now = 100.0
    refusals = Refusals(clock=lambda: now)
    assert refusals.reason("a") == ""
    assert refusals.add("a", ModelError("no such file")) == "no such file"
    assert refusals.reasons() == {"a": "no such file"}
    assert refusals.reason("b") == ""
    now += FIRST_PAUSE_SECONDS
    assert refusals.reason("a") == ""
    assert refusals.reasons() == {}
    refusals.add("a", OSError("gone"))
    now += FIRST_PAUSE_SECONDS
    assert refusals.reason("a") == "OSError: gone"
    for _ in range(10):
        refusals.add("a", OSError("gone"))
    now += LONGEST_PAUSE_SECONDS
    assert refusals.reason("a") == ""
    refusals.add("a", OSError("gone"))
    refusals.remove("a")
    assert refusals.reason("a") == ""
    refusals.add("a", OSError("gone"))
    now += FIRST_PAUSE_SECONDS  # it begins anew
    assert refusals.reason("a") == ""


class OutOfMemoryError(RuntimeError):
    """As torch has one, that is no `MemoryError`."""


@pytest.mark.parametrize("cause", [MemoryError("full"), OutOfMemoryError("full")])
def test_too_little_memory_is_found_behind_other_errors(cause: Exception) -> None:
    error = ModelError("does not fit")
    assert not is_full(error)
    error.__cause__ = cause
    assert is_full(error)
    assert is_full(cause)
    assert not is_full(None)
