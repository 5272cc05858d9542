"""What `sdq top` shows: one look at a server, its words, and its object for programs."""

import sys
from typing import Any, NamedTuple

import msgspec

from sdq.cli.output import as_bytes, as_duration, as_pictures, plain
from sdq.client.client import Client
from sdq.protocol.activity_messages import Activity, Happening, PersonLoad
from sdq.protocol.messages import Status, WorkerStatus

_ENVELOPE = ("type", "request_id")

WORKER_TITLES = ("WORKER", "STATE", "JOBS", "STEPS/S", "FREE", "DEVICE", "MODELS", "NOTE")

_HAPPENED = {
    "drawn": "{worker} drew a picture of {model} in {note}",
    "failed": "a picture of {model} failed: {note}",
    "online": "{worker} is online",
    "offline": "{worker} is gone",
}


class Look(NamedTuple):
    """The server at one moment."""

    status: Status
    activity: Activity


async def look(client: Client) -> Look:
    """Asks for both. Raises what `Client.status` raises."""
    return Look(await client.status(), await client.activity())


def record_of(seen: Look) -> dict[str, Any]:
    """The object of ``--json``."""
    status, activity = map(msgspec.to_builtins, seen)
    for answer in (status, activity):
        for name in _ENVELOPE:
            answer.pop(name, None)
    library = {
        "pictures": status["pictures"],
        "bytes": status["library_bytes"],
        "max_bytes": status["library_max_bytes"],
        "hits": activity["hits"],
        "misses": activity["misses"],
        "hit_rate": hit_rate(seen.activity),
    }
    return {
        "server": status["server"],
        "uptime_seconds": status["uptime_seconds"],
        "redis": status["redis"],
        "queue": {name: status[name] for name in ("queued", "dispatched", "running")},
        "people": activity["people"],
        "more_people": activity["more_people"],
        "workers": status["workers"],
        "library": library,
        "drawn": activity["drawn"],
        "failed": activity["failed"],
        "events": activity["events"],
    }


def hit_rate(activity: Activity) -> float | None:
    """Of the pictures asked for, the share that the library had; ``None``: nobody has asked."""
    asked = activity.hits + activity.misses
    return round(activity.hits / asked, 4) if asked else None


def head_lines(seen: Look) -> list[str]:
    """The server, its queue, its library."""
    status, activity = seen
    waiting = status.queued + status.dispatched
    rate = hit_rate(activity)
    hits = "nobody has asked" if rate is None else f"{rate:.0%} of {_asked(activity)} had"
    redis = "" if status.redis == "ok" else f", redis: {plain(status.redis)}"
    return [
        f"{plain(status.server)}, up for {as_duration(status.uptime_seconds)}{redis}",
        f"queue: {status.running} being drawn, {waiting} waiting",
        f"library: {as_pictures(status.pictures)}, {as_bytes(status.library_bytes)} of "
        f"{as_bytes(status.library_max_bytes)}, {hits}",
    ]


def _asked(activity: Activity) -> int:
    return activity.hits + activity.misses


def drawn_line(activity: Activity) -> str:
    """How many pictures were drawn since the start, by model."""
    models = [f"{plain(tally.model)} {tally.drawn}" for tally in activity.drawn]
    failed = [f"{activity.failed} failed"] if activity.failed else []
    return "drawn: " + (", ".join([*models, *failed]) or "none yet")


def worker_row(worker: WorkerStatus) -> tuple[str, ...]:
    """In the order of `WORKER_TITLES`."""
    step, free = worker.seconds_per_step, worker.memory_free_bytes
    names = [f"{one}*" if one in worker.loaded else one for one in worker.models]
    return (
        plain(worker.worker_id),
        plain(worker.state),
        str(worker.active),
        f"{1 / step:.1f}" if step else "-",
        "-" if free is None else as_bytes(free),
        plain(worker.device),
        plain(" ".join(names)),
        plain(worker.note),
    )


def person_lines(activity: Activity, most: int = sys.maxsize) -> list[str]:
    """Who waits for how much, in at most so many lines."""
    others = 0
    lines = []
    for load in activity.people:
        others += not load.is_mine
        lines.append(f"{'you' if load.is_mine else f'person {others}'}: {_in_words(load)}")
    people = len(lines) + activity.more_people
    if people > most or activity.more_people:
        lines = lines[: most - 1]
        lines.append(f"and {people - len(lines)} more")
    return lines or ["nobody waits"]


def _in_words(load: PersonLoad) -> str:
    return f"{load.drawing} being drawn, {load.waiting} waiting"


def event_lines(activity: Activity) -> list[str]:
    """What happened, newest first."""
    return [f"{as_duration(one.seconds_ago)} ago  {_told(one)}" for one in activity.events]


def _told(event: Happening) -> str:
    words = _HAPPENED.get(event.what, "{what} {worker} {model} {note}")
    return words.format(
        what=plain(event.what),
        worker=plain(event.worker_id),
        model=plain(event.model),
        note=plain(event.note),
    ).strip()
