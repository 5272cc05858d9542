"""Models that could not be loaded: for some time nobody tries again, and others may draw them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sdq.errors import SdqError

FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 600.0


@dataclass(frozen=True)
class _Refusal:
    reason: str
    until_seconds: float
    pause_seconds: float


class Refusals:
    """Written by the engine's thread, read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}

    def add(self, model_id: str, error: Exception) -> str:
        """It could not be loaded: the next try is after a pause, longer each time. The reason."""
        before = self._refusals.get(model_id)
        pause = FIRST_PAUSE_SECONDS
        if before is not None:
            pause = min(LONGEST_PAUSE_SECONDS, 2 * before.pause_seconds)
        # Not the error: it would keep what it was raised in, half a model perhaps.
        reason = _in_words(error)
        self._refusals[model_id] = _Refusal(reason, self._clock() + pause, pause)
        return reason

    def remove(self, model_id: str) -> None:
        """It was loaded."""
        self._refusals.pop(model_id, None)

    def reason(self, model_id: str) -> str:
        """Why it is not to be loaded now; empty when it may be."""
        found = self._refusals.get(model_id)
        return found.reason if found is not None and self._clock() < found.until_seconds else ""

    def reasons(self) -> dict[str, str]:
        """By model."""
        found = {model_id: self.reason(model_id) for model_id in tuple(self._refusals)}
        return {model_id: reason for model_id, reason in found.items() if reason}


def is_full(error: BaseException | None) -> bool:
    """Whether too little memory is what stopped it."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


def _in_words(error: Exception) -> str:
    if isinstance(error, SdqError):
        return error.message or error.code
    return f"{type(error).__name__}: {error}"
