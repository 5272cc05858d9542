"""The inside of a server, put together: all between a request and the job table.

Sockets, Redis and files are opened elsewhere; the tests put in doubles for them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.library.library import Library
from sdq.server.queue.dispatch import Dispatcher
from sdq.server.queue.events import Ears
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.outcomes import Outcomes
from sdq.server.queue.recovery import Recovery
from sdq.server.queue.roster import Roster
from sdq.server.queue.scheduler import Scheduler
from sdq.server.queue.speeds import News, Speeds
from sdq.server.queue.subscriptions import Subscriptions
from sdq.server.queue.turns import Turns
from sdq.server.queue.waiting import Waiting
from sdq.server.queue.wants import Wants
from sdq.server.requests.activity import ActivityReport
from sdq.server.requests.announcing import Announcer
from sdq.server.requests.attachment import Attachment
from sdq.server.requests.cancelling import Cancelling
from sdq.server.requests.enlistment import Enlistment
from sdq.server.requests.foresight import Foresight
from sdq.server.requests.generation import Generation
from sdq.server.requests.job_list import JobList
from sdq.server.requests.submission import Submission
from sdq.server.requests.wishes import Planner
from sdq.server.tallies import Tallies


@dataclass(frozen=True, slots=True)
class Storage:
    """What outlives the process. ``clock``: seconds since 1970."""

    database: Database
    catalog: Catalog
    library: Library
    clock: Callable[[], float]


@dataclass(frozen=True)
class Queue:
    """From the table to the workers and back."""

    catalog: Catalog
    library: Library
    table: JobTable
    turns: Turns
    wants: Wants
    dispatcher: Dispatcher
    roster: Roster
    subscriptions: Subscriptions
    tallies: Tallies
    speeds: Speeds
    news: News
    outcomes: Outcomes
    recovery: Recovery
    waiting: Waiting
    scheduler: Scheduler


@dataclass(frozen=True)
class Parts(Queue):
    """Everything that a request passes through, one of each for the server."""

    cancelling: Cancelling
    generation: Generation
    submission: Submission
    attachment: Attachment
    job_list: JobList
    activity: ActivityReport
    foresight: Foresight


def wire(
    storage: Storage,
    dispatcher: Dispatcher,
    roster: Roster,
    ears: Ears,
    *,
    max_count: int,
    max_queued_jobs: int,
    monotonic: Callable[[], float] = time.monotonic,
    tallies: Tallies | None = None,
) -> Parts:
    """Starts nothing: the owner runs the scheduler. ``monotonic``: the clock of the roster."""
    queue = _wire_queue(storage, dispatcher, roster, ears, monotonic, tallies or Tallies(monotonic))
    table, library, subscriptions = queue.table, queue.library, queue.subscriptions
    scheduler = queue.scheduler
    announcer = Announcer(queue.waiting, queue.news.steps)
    cancelling = Cancelling(table, queue.wants, dispatcher, scheduler, subscriptions)
    planner = Planner(queue.catalog, max_count=max_count)
    enlistment = Enlistment(
        table, library, subscriptions, cancelling, queue.catalog, max_queued_jobs=max_queued_jobs
    )
    generation = Generation(
        planner,
        library,
        enlistment,
        cancelling,
        announcer,
        roster,
        scheduler,
        subscriptions,
        queue.tallies,
    )
    return Parts(
        **vars(queue),
        cancelling=cancelling,
        generation=generation,
        submission=Submission(planner, table, enlistment, scheduler, queue.tallies),
        attachment=Attachment(table, library, subscriptions, announcer),
        activity=ActivityReport(queue.tallies, queue.wants),
        job_list=JobList(queue.wants, announcer, clock=storage.clock),
        foresight=Foresight(planner, library, table, roster, queue.speeds),
    )


def _wire_queue(
    storage: Storage,
    dispatcher: Dispatcher,
    roster: Roster,
    ears: Ears,
    clock: Callable[[], float],
    tallies: Tallies,
) -> Queue:
    catalog, library, database = storage.catalog, storage.library, storage.database
    table, subscriptions = JobTable(database, clock=storage.clock), Subscriptions()
    turns, wants = Turns(database, clock=storage.clock), Wants(database, clock=storage.clock)
    speeds, news = Speeds(roster), News(clock=clock)
    outcomes = Outcomes(table, library, subscriptions, dispatcher, roster, speeds, news, tallies)
    recovery = Recovery(table, outcomes, dispatcher, roster, speeds, news, ears, clock=clock)
    waiting = Waiting(table, turns, roster, speeds, news)
    work = (table, turns, dispatcher, roster, catalog, recovery, waiting)
    return Queue(
        catalog=catalog,
        library=library,
        table=table,
        turns=turns,
        wants=wants,
        dispatcher=dispatcher,
        roster=roster,
        subscriptions=subscriptions,
        tallies=tallies,
        speeds=speeds,
        news=news,
        outcomes=outcomes,
        recovery=recovery,
        waiting=waiting,
        scheduler=Scheduler(*work, subscriptions, news, ears, clock=clock),
    )
