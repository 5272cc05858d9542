"""The replies to one request, on their way from the connection to whoever asked."""

import asyncio
from collections import deque

from sdq.errors import SdqError
from sdq.protocol.job_messages import Draining, Jobs, JobsCancelled, Submitted
from sdq.protocol.messages import (
    Accepted,
    CancelReply,
    ErrorReply,
    Failure,
    FoundPictures,
    Models,
    Picture,
    Progress,
    Removed,
    Status,
    WorkerSettings,
)

Reply = (
    Accepted
    | CancelReply
    | Draining
    | ErrorReply
    | Failure
    | FoundPictures
    | Jobs
    | JobsCancelled
    | Models
    | Picture
    | Progress
    | Removed
    | Status
    | Submitted
    | WorkerSettings
)
"""What a server says about a request."""

MAX_WAITING_REPLIES = 256
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Mailbox:
    """A queue that is bounded in replies and in bytes of pictures.

    Of the news of one picture only the newest waits, so that a slow reader is never behind.
    When it is full, `put` waits, and with it the whole connection.
    """

    def __init__(self) -> None:
        self._waiting: deque[Reply | int] = deque()  # a number: the progress of that picture
        self._progress: dict[int, Progress] = {}
        self._bytes = 0
        self._error: SdqError | None = None
        self._abandoned = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING_REPLIES or self._bytes >= MAX_WAITING_BYTES

    async def put(self, reply: Reply) -> None:
        """Adds a reply once there is room; drops it when nobody will read it. Safe to cancel."""
        while self._is_full and not self._abandoned:
            self._room.clear()
            await self._room.wait()
        if self._abandoned:
            return
        if isinstance(reply, Progress):
            known = reply.index in self._progress
            self._progress[reply.index] = reply
            if not known:
                self._waiting.append(reply.index)
        else:
            self._waiting.append(reply)
            self._bytes += _size(reply)
        self._changed.set()

    async def get(self) -> Reply:
        """The next reply; after the last one before a failure, that failure. Safe to cancel."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        first = self._waiting.popleft()
        reply = self._progress.pop(first) if isinstance(first, int) else first
        self._bytes -= _size(reply)
        self._room.set()
        return reply

    def fail(self, error: SdqError) -> None:
        """No more replies will come, for this reason."""
        if self._error is None:
            self._error = error
        self._changed.set()

    def abandon(self) -> None:
        """Nobody reads any more: what waits is dropped, `put` no longer waits."""
        self._abandoned = True
        self._waiting.clear()
        self._progress.clear()
        self._room.set()


def _size(reply: Reply) -> int:
    return len(reply.image) if isinstance(reply, Picture) else 0
