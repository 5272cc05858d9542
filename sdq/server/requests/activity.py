"""`GetActivity`: the tallies, and whose jobs wait."""

from sdq.protocol.activity_messages import Activity, GetActivity, Happening, ModelTally, PersonLoad
from sdq.server.queue.wants import Load, Wants
from sdq.server.tallies import Tallies

MAX_PEOPLE = 50
MAX_MODELS = 50
MAX_EVENTS = 20


class ActivityReport:
    """One for the server."""

    def __init__(self, tallies: Tallies, wants: Wants) -> None:
        self._tallies = tallies
        self._wants = wants

    async def report(self, message: GetActivity, identity: str) -> Activity:
        """What this person may know: of others only how much they wait for."""
        tallies = self._tallies
        loads = sorted(await self._wants.loads(), key=_most_first)
        now = tallies.clock()
        drawn = sorted(tallies.drawn.items(), key=lambda item: (-item[1], item[0]))
        newest = list(reversed(tallies.events))[:MAX_EVENTS]
        return Activity(
            request_id=message.request_id,
            uptime_seconds=round(now - tallies.started_at, 1),
            hits=tallies.hits,
            misses=tallies.misses,
            failed=sum(tallies.failed.values()),
            drawn=tuple(ModelTally(model, count) for model, count in drawn[:MAX_MODELS]),
            people=tuple(
                PersonLoad(load.identity == identity, load.waiting, load.drawing)
                for load in loads[:MAX_PEOPLE]
            ),
            more_people=max(0, len(loads) - MAX_PEOPLE),
            events=tuple(
                Happening(
                    event.what, round(now - event.at, 1), event.worker_id, event.model, event.note
                )
                for event in newest
            ),
        )


def _most_first(load: Load) -> tuple[int, str]:
    return -(load.waiting + load.drawing), load.identity
