"""The inside of a server, put together: all between a request and the job table.

Sockets, Redis and files are opened elsewhere; the tests put in doubles for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.dispatch import Dispatcher
from sdq.server.generation import Generation
from sdq.server.jobs import JobTable
from sdq.server.library import Library
from sdq.server.outcomes import Outcomes
from sdq.server.roster import Roster
from sdq.server.scheduler import Scheduler
from sdq.server.subscriptions import Subscriptions
from sdq.server.turns import Turns
from sdq.server.wants import Wants


@dataclass(frozen=True, slots=True)
class Storage:
    """What outlives the process. ``clock``: seconds since 1970."""

    database: Database
    catalog: Catalog
    library: Library
    clock: Callable[[], float]


@dataclass(frozen=True)
class Parts:
    """Everything that a request passes through, one of each for the server."""

    catalog: Catalog
    library: Library
    table: JobTable
    turns: Turns
    wants: Wants
    dispatcher: Dispatcher
    roster: Roster
    subscriptions: Subscriptions
    outcomes: Outcomes
    scheduler: Scheduler
    generation: Generation


def wire(
    storage: Storage,
    dispatcher: Dispatcher,
    roster: Roster,
    *,
    max_count: int,
    max_queued_jobs: int,
) -> Parts:
    """Starts nothing: the owner runs the scheduler."""
    catalog, library, clock = storage.catalog, storage.library, storage.clock
    table = JobTable(storage.database, clock=clock)
    turns, wants = Turns(storage.database, clock=clock), Wants(storage.database, clock=clock)
    subscriptions = Subscriptions()
    outcomes = Outcomes(table, library, subscriptions)
    scheduler = Scheduler(
        table, turns, dispatcher, roster, catalog, outcomes, subscriptions, clock=clock
    )
    generation = Generation(
        catalog,
        library,
        table,
        dispatcher,
        roster,
        scheduler,
        subscriptions,
        max_count=max_count,
        max_queued_jobs=max_queued_jobs,
    )
    return Parts(
        catalog=catalog,
        library=library,
        table=table,
        turns=turns,
        wants=wants,
        dispatcher=dispatcher,
        roster=roster,
        subscriptions=subscriptions,
        outcomes=outcomes,
        scheduler=scheduler,
        generation=generation,
    )
