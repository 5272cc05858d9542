"""The messages about what a server has been doing, for `sdq top`."""

import msgspec

from sdq.protocol.vocabulary import BaseMessage, BaseRequest, RequestId

# ---------------------------------------------------------------- client to server


class GetActivity(BaseRequest, frozen=True):
    """What the server has been doing since it started. Answer: `Activity`."""


# ---------------------------------------------------------------- server to client


class PersonLoad(msgspec.Struct, frozen=True):
    """The jobs of one person that have not ended. Nobody is told who the others are."""

    is_mine: bool
    waiting: int
    drawing: int  # begun by a worker; what only lies in its hands waits


class ModelTally(msgspec.Struct, frozen=True):
    model: str
    drawn: int


class Happening(msgspec.Struct, frozen=True):
    """``what``: drawn, failed, online, offline; others may come. Fields that say nothing of it are
    empty."""

    what: str
    seconds_ago: float
    worker_id: str = ""
    model: str = ""
    note: str = ""


class Activity(BaseMessage, frozen=True):
    """Counted in memory since the server started. ``hits`` and ``misses``: pictures asked for that
    the library had, or not."""

    request_id: RequestId
    uptime_seconds: float
    hits: int
    misses: int
    failed: int  # jobs that came to nothing
    drawn: tuple[ModelTally, ...]  # pictures, most first
    people: tuple[PersonLoad, ...]  # most jobs first
    more_people: int  # others, who are not listed
    events: tuple[Happening, ...]  # newest first
