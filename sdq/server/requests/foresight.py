"""`Foresee`: what would become of requests, without a job and without a drawing."""

import asyncio
from collections.abc import Mapping, Sequence
from statistics import fmean

from sdq.errors import SdqError, UsageError
from sdq.protocol.constants import MAX_JOBS_AT_ONCE
from sdq.protocol.job_messages import Foresee, Foreseen, Intent, Outlook, PlannedPicture
from sdq.protocol.messages import Origin
from sdq.server.library.library import Library
from sdq.server.queue.job import Job
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.roster import Roster
from sdq.server.queue.speeds import Speeds
from sdq.server.requests.wishes import Plan, Planner, Wish

_AT_A_STRETCH = 10
"""Intents that are planned before others have their turn: hashing a thousand specs takes 20 ms."""


class Foresight:
    """One for the server. Looks at library, table and measured speeds; changes nothing."""

    def __init__(
        self, planner: Planner, library: Library, table: JobTable, roster: Roster, speeds: Speeds
    ) -> None:
        self._planner = planner
        self._library = library
        self._table = table
        self._roster = roster
        self._speeds = speeds

    async def foresee(self, message: Foresee) -> Foreseen:
        """An outlook for each intent; what is wrong with one of them is in its outlook.

        A picture that two intents want counts as new in both. Raises `UsageError` for more than
        `MAX_JOBS_AT_ONCE` pictures together, `StackError` when the database does not answer.
        Safe to cancel.
        """
        if (total := sum(intent.count for intent in message.intents)) > MAX_JOBS_AT_ONCE:
            raise UsageError(
                f"{total} pictures to foresee at once, the limit is {MAX_JOBS_AT_ONCE}",
                hint="ask in several requests",
            )
        plans = await self._plans(message.intents)
        keys = [wish.key for plan in plans if isinstance(plan, Plan) for wish in plan.wishes]
        hits = await self._library.has(keys)
        in_flight = await self._table.in_flight([key for key in keys if key not in hits])
        return Foreseen(
            message.request_id,
            tuple(
                self._outlook(plan, hits, in_flight) if isinstance(plan, Plan) else _refused(plan)
                for plan in plans
            ),
        )

    async def _plans(self, intents: Sequence[Intent]) -> list[Plan | SdqError]:
        plans: list[Plan | SdqError] = []
        for number, intent in enumerate(intents, 1):
            try:
                plans.append(self._planner.plan(intent))
            except SdqError as error:
                plans.append(error)
            if number % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)
        return plans

    def _outlook(self, plan: Plan, hits: set[str], in_flight: Mapping[str, Job]) -> Outlook:
        model_id = plan.wishes[0].spec.model
        ready = self._roster.ready(model_id, plan.fingerprint)
        known = [
            seconds
            for beat in ready
            if (seconds := self._speeds.share_seconds(beat.worker_id, plan.wishes[0].spec))
            is not None
        ]
        return Outlook(
            pictures=tuple(_planned(wish, hits, in_flight) for wish in plan.wishes),
            workers=len(ready),
            picture_seconds=round(fmean(known), 3) if known else None,
            note=self._roster.why_nobody(model_id, plan.fingerprint),
        )


def _planned(wish: Wish, hits: set[str], in_flight: Mapping[str, Job]) -> PlannedPicture:
    if wish.key in hits:
        return PlannedPicture(wish.index, wish.key, wish.spec, Origin.HIT, None)
    job = in_flight.get(wish.key)
    origin, job_id = (Origin.MADE, None) if job is None else (Origin.JOINED, job.job_id)
    return PlannedPicture(wish.index, wish.key, wish.spec, origin, job_id)


def _refused(error: SdqError) -> Outlook:
    return Outlook(code=error.code, message=error.message, hint=error.hint)
