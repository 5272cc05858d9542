"""How long it took after each kill until pictures came again.

*Recovery* of a deed: the time from the kill (from the SIGCONT, where a part was stopped) to the
first moment when one of the pictures that were being waited for just then is committed in the
library; without such pictures there was nothing to recover. The time until the killed part is
started again is inside. What lies outside is the time during which the killer holds back the
server or Redis by *another* deed: nothing can be drawn then, whatever the stack does.

*Hand-over* of a killed worker: the time from its kill until the last picture that it had in hand,
by its last heartbeat, is committed; reckoned in the same way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdq.testing.chaos.killer import Deed
from sdq.testing.chaos.plan import Blow, Target


@dataclass(frozen=True)
class Wait:
    """A job that had to be drawn. Times in seconds since 1970."""

    job_id: str
    asked_at: float
    stored_at: float


@dataclass(frozen=True)
class Recovery:
    """After a deed; ``None``: nothing was waited for."""

    deed: Deed
    seconds: float | None
    hand_over_seconds: float | None


def recoveries_of(deeds: Sequence[Deed], waits: Sequence[Wait]) -> list[Recovery]:
    """One for each deed."""
    return [_recovery_of(deed, deeds, waits) for deed in deeds]


def _recovery_of(deed: Deed, deeds: Sequence[Deed], waits: Sequence[Wait]) -> Recovery:
    begin = deed.back_at if deed.blow is Blow.STOPPED else deed.at
    others = [
        (other.at, other.back_at)
        for other in deeds
        if other is not deed and other.target is not Target.WORKER
    ]
    ends = [wait.stored_at for wait in waits if wait.asked_at <= begin < wait.stored_at]
    seconds = _outside(begin, min(ends), others) if ends else None
    in_hand = set(deed.in_hand)
    last = [wait.stored_at for wait in waits if wait.job_id in in_hand]
    hand_over = _outside(begin, max(last), others) if last and max(last) > begin else None
    return Recovery(deed, seconds, hand_over)


def _outside(begin: float, end: float, pauses: Iterable[tuple[float, float]]) -> float:
    """The seconds between two moments that lie in none of the pauses."""
    seconds, reached = 0.0, begin
    for pause_begin, pause_end in sorted(pauses):
        if pause_end <= reached or pause_begin >= end:
            continue
        seconds += max(0.0, pause_begin - reached)
        reached = max(reached, pause_end)
    return seconds + max(0.0, end - reached)


def worst_seconds(recoveries: Iterable[Recovery]) -> float:
    """The longest recovery; 0 when nothing was waited for."""
    return max((found.seconds for found in recoveries if found.seconds is not None), default=0.0)


def worst_hand_over_seconds(recoveries: Iterable[Recovery]) -> float:
    found = [recovery.hand_over_seconds for recovery in recoveries]
    return max((seconds for seconds in found if seconds is not None), default=0.0)


def worst_by_sort(recoveries: Sequence[Recovery]) -> dict[tuple[Target, Blow], float]:
    """The longest recovery of each sort of deed that was done."""
    sorts = sorted({(found.deed.target, found.deed.blow) for found in recoveries})
    return {
        sort: worst_seconds(
            found for found in recoveries if (found.deed.target, found.deed.blow) == sort
        )
        for sort in sorts
    }
