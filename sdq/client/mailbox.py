"""The replies to one request, on their way from the connection to whoever asked."""

import asyncio
from collections import deque
from typing import BinaryIO

import msgspec

from sdq.errors import OutputError, ProtocolError, SdqError, ServerBusy
from sdq.protocol.activity_messages import Activity
from sdq.protocol.catalog_messages import CatalogChanged, Loras, ModelShown
from sdq.protocol.constants import MAX_COUNT, MAX_PREVIEW_BYTES
from sdq.protocol.job_messages import Draining, Foreseen, Jobs, JobsCancelled, Submitted
from sdq.protocol.library_messages import (
    FoundPictures,
    Pinned,
    Removed,
)
from sdq.protocol.messages import (
    Accepted,
    CancelReply,
    ErrorReply,
    Failure,
    Models,
    Picture,
    Progress,
    Status,
    WorkerSettings,
)

Reply = (
    Accepted
    | CancelReply
    | Draining
    | ErrorReply
    | Failure
    | Foreseen
    | FoundPictures
    | Jobs
    | JobsCancelled
    | Loras
    | Models
    | ModelShown
    | CatalogChanged
    | Picture
    | Pinned
    | Progress
    | Removed
    | Status
    | Activity
    | Submitted
    | WorkerSettings
)
"""What a server says about a request."""

MAX_WAITING_REPLIES = 4 * MAX_COUNT
"""News and a picture of each index, and some: more than that no request has to expect."""

MAX_MEMORY_BYTES = 64 * 1024 * 1024
"""Of pictures that nobody has read yet, over all requests of a connection."""

MAX_FILE_BYTES = 4 * 1024 * 1024 * 1024
"""The same for those that went to a file, for each request."""


class Budget:
    """The memory that the mailboxes of one connection share."""

    def __init__(self, max_bytes: int = MAX_MEMORY_BYTES) -> None:
        self._left_bytes = max_bytes

    def take(self, size_bytes: int) -> bool:
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        self._left_bytes += size_bytes


class _InFile(msgspec.Struct, frozen=True):
    """A picture whose bytes wait in the mailbox's file."""

    picture: Picture  # without its image
    offset: int
    size_bytes: int


class Mailbox:
    """A queue that never holds up the connection, and is bounded all the same.

    Of the news of one picture only the newest waits, so that a slow reader is never behind.
    Pictures over the memory of the connection wait in a file without a name, which is gone
    with the mailbox. When that is full too, this request alone fails.
    """

    def __init__(self, budget: Budget | None = None, *, max_file_bytes: int = MAX_FILE_BYTES):
        self._budget = Budget() if budget is None else budget
        self._max_file_bytes = max_file_bytes
        self._waiting: deque[Reply | _InFile | tuple[int, int]] = deque()
        self._progress: dict[tuple[int, int], Progress] = {}  # by request and index
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        self._error: SdqError | None = None
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, reply: Reply) -> None:
        """Adds a reply; drops it when nobody will read it. Never waits."""
        if self._closed or self._error is not None:
            return
        if isinstance(reply, Progress):
            self._put_progress(reply)
        elif isinstance(reply, Picture) and not self._budget.take(len(reply.image)):
            self._put_into_file(reply)
        else:
            self._waiting.append(reply)
        if len(self._waiting) > MAX_WAITING_REPLIES:
            self.fail(ProtocolError("the server answers with far more than was asked for"))
        self._changed.set()

    def _put_progress(self, news: Progress) -> None:
        name = (news.request_id, news.index)
        preview = news.preview
        if len(preview) > MAX_PREVIEW_BYTES:
            preview = b""
        if name not in self._progress:
            self._waiting.append(name)
        elif not preview:
            preview = self._progress[name].preview  # the newest of these waits too
        if preview != news.preview:
            news = msgspec.structs.replace(news, preview=preview)
        self._progress[name] = news

    async def get(self) -> Reply:
        """The next reply; after the last one before a failure, that failure. Safe to cancel."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        first = self._waiting.popleft()
        if isinstance(first, tuple):
            return self._progress.pop(first)
        if isinstance(first, _InFile):
            return self._from_file(first)
        if isinstance(first, Picture):
            self._budget.give_back(len(first.image))
        return first

    def fail(self, error: SdqError) -> None:
        """No more replies will come, for this reason."""
        if self._error is None:
            self._error = error
        self._changed.set()

    def close(self) -> None:
        """Nobody reads any more: what waits is dropped."""
        self._closed = True
        for waiting in self._waiting:
            if isinstance(waiting, Picture):
                self._budget.give_back(len(waiting.image))
        self._waiting.clear()
        self._progress.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put_into_file(self, picture: Picture) -> None:
        if self._file_bytes + len(picture.image) > self._max_file_bytes:
            self.fail(
                ServerBusy(
                    "the pictures of this request are not read as fast as they come",
                    hint="ask for fewer at once, or read them sooner",
                )
            )
            return
        try:
            if self._file is None:
                from tempfile import TemporaryFile  # 4 ms, for slow readers only

                self._file = TemporaryFile("w+b", prefix="sdq-")  # noqa: SIM115  closed by `close`
            self._file.seek(self._file_bytes)
            self._file.write(picture.image)
            self._file.flush()
        except OSError as error:
            self.fail(_no_room(error))
            return
        bare = msgspec.structs.replace(picture, image=b"")
        self._waiting.append(_InFile(bare, self._file_bytes, len(picture.image)))
        self._file_bytes += len(picture.image)

    def _from_file(self, waiting: _InFile) -> Picture:
        assert self._file is not None
        try:
            self._file.seek(waiting.offset)
            image = self._file.read(waiting.size_bytes)
        except OSError as error:
            raise _no_room(error) from error
        if not any(isinstance(other, _InFile) for other in self._waiting):
            self._file_bytes = 0  # all were read: the room is used again
        return msgspec.structs.replace(waiting.picture, image=image)


def _no_room(error: OSError) -> OutputError:
    return OutputError(
        f"pictures that nobody has read yet cannot be kept in a file: {error.strerror or error}",
        hint="make room, or read them sooner",
    )
