"""How quickly bytes arrive, and how long the rest of them will take."""

import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10.0
"""The mean over so long: shorter ones jump about, longer ones do not see a line that slows."""

SAMPLE_SECONDS = 0.25
"""Between two looks that are kept, so at most 41 of them are."""

LEAST_SECONDS = 1.0
"""Before so long nothing is said: the first figures of a download mean little."""


class Rate:
    """For one thread. Hears of what has arrived in this run, never of what was there before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, int]] = deque()

    def note(self, arrived_bytes: int) -> None:
        """So many have arrived by now, all together."""
        now = self._clock()
        while len(self._looks) > 1 and now - self._looks[0][0] > WINDOW_SECONDS:
            self._looks.popleft()
        if len(self._looks) > 1 and now - self._looks[-2][0] < SAMPLE_SECONDS:
            self._looks.pop()
        self._looks.append((now, arrived_bytes))

    def bytes_per_second(self) -> float | None:
        """Over the last `WINDOW_SECONDS`; ``None`` while nobody can say. 0 when it stalls."""
        if len(self._looks) < 2:
            return None
        (began, before), (now, after) = self._looks[0], self._looks[-1]
        seconds = now - began
        return (after - before) / seconds if seconds >= LEAST_SECONDS else None

    def seconds_left(self, left_bytes: int) -> float | None:
        """Until so many more are there; ``None`` while nobody can say, or when it stalls."""
        speed = self.bytes_per_second()
        return left_bytes / speed if speed else None
