"""A request that waits for pictures, and asks again for the missing ones when the server was lost.

It is made of *parts*, each a request of its own on the wire: one at first. After a loss, jobs
that are known are attached to, so that nothing is drawn twice; for the other indices the same
is asked again, in runs of neighbours.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress

import msgspec

from sdq.client.connection import RUN_AGAIN, Line
from sdq.client.connector import Connector
from sdq.client.leaving import take_back
from sdq.client.losses import may_pass
from sdq.client.mailbox import Mailbox, Reply
from sdq.client.news import News, Reconnected, Reconnecting
from sdq.errors import ConnectionFailed, ProtocolError, SdqError, from_code
from sdq.protocol.constants import MAX_JOBS_AT_ONCE
from sdq.protocol.job_messages import Attach
from sdq.protocol.messages import (
    Accepted,
    CachePolicy,
    CancelReply,
    ErrorReply,
    Failure,
    Generate,
    Origin,
    Picture,
    Progress,
)

MAX_PARTS = 8
"""Under way at once: other requests of the connection want room too."""

_GONE = ("unknown_job", "not_in_library")
"""What an attach says of a job, or of its picture, that is not there any more."""

_NAMED_JOBS = 10

WhenLeft = Callable[[CancelReply | None], None]
"""Told what became of the jobs of a request that was left early; ``None``: nobody knows."""


class Part(msgspec.Struct, frozen=True):
    """A request on the wire. ``indices``: of the pictures, in the order of the wire."""

    request_id: int
    indices: tuple[int, ...]
    is_attach: bool
    left: set[int]  # of the indices


class Waiting:
    """One `Generate` (``order``), or one `Attach` to ``jobs`` (index → job id) without one.

    ``preview``: the wish to see pictures grow, which outlives a loss of the server too.
    """

    def __init__(
        self,
        connector: Connector,
        order: Generate | None,
        jobs: Mapping[int, str] | None = None,
        when_left: WhenLeft | None = None,
        preview: bool = False,
    ) -> None:
        self._connector = connector
        self._order = order
        self._jobs = dict(jobs or {})
        self._when_left = when_left
        self._preview = preview
        self._left = set(self._jobs)
        if order is not None:
            self._left = set(range(order.first_index, order.first_index + order.count))
        self._unasked = set(self._left)
        self._parts: dict[int, Part] = {}
        self._origins: dict[int, Origin] = {}  # as promised before a loss
        self._moving: set[int] = set()  # of which there was progress since the last loss
        self._was_accepted = False
        self._line: Line | None = None
        self._mailbox: Mailbox | None = None

    async def follow(self) -> AsyncGenerator[News, None]:
        """News until the last picture is there. Leaving early takes the request back."""
        try:
            while self._left:
                try:
                    reply = await self._next_reply()
                except SdqError as error:
                    self._raise_unless_lost(error)
                    yield Reconnecting(error.message)
                    await self._reconnect(error)
                    yield Reconnected()
                    continue
                news = self._read(reply)
                if news is not None:
                    yield news
        finally:
            await self._leave()

    # ------------------------------------------------------------ asking

    async def _next_reply(self) -> Reply:
        if self._line is None or self._mailbox is None:
            self._line = self._connector.line  # lost, maybe, when nobody waited
            self._line = await self._connector.usable()
            self._mailbox = self._line.new_mailbox()
        while self._unasked and len(self._parts) < MAX_PARTS:
            self._ask(self._line, self._mailbox)
        return await self._mailbox.get()

    def _ask(self, line: Line, mailbox: Mailbox) -> None:
        """Sends one part for some of the indices that nobody was asked for."""
        known = sorted(self._unasked & self._jobs.keys())[:MAX_JOBS_AT_ONCE]
        if known:
            indices = tuple(known)
            job_ids = tuple(self._jobs[index] for index in indices)
            resumes = self._order is not None
            request_id = line.begin(
                lambda number: Attach(number, job_ids, resumes, self._preview), mailbox
            )
        else:
            indices = _first_run(self._unasked, line.welcome.limits.max_count)
            request_id = line.begin(lambda number: self._generate(number, indices), mailbox)
        self._parts[request_id] = Part(request_id, indices, bool(known), set(indices))
        self._unasked.difference_update(indices)

    def _generate(self, request_id: int, indices: tuple[int, ...]) -> Generate:
        assert self._order is not None
        return msgspec.structs.replace(
            self._order,
            request_id=request_id,
            first_index=indices[0],
            count=len(indices),
            # What was accepted once may wait: a server that has just started knows no worker yet.
            wait=self._order.wait or self._was_accepted,
            preview=self._preview,
        )

    # ------------------------------------------------------------ losing the server

    def _raise_unless_lost(self, error: SdqError) -> None:
        is_lost = self._line is not None and self._line.broken is not None
        if not (is_lost and may_pass(error)):
            raise error
        if not self._connector.reconnect_seconds:
            raise ConnectionFailed(error.message, hint=self._how_to_go_on()) from error

    async def _reconnect(self, loss: SdqError) -> None:
        assert self._line is not None
        try:
            line = await self._connector.again(self._line)
        except ConnectionFailed as error:
            seconds = self._connector.reconnect_seconds
            raise ConnectionFailed(
                f"{loss.message}, and it did not come back within {seconds:g} s: {error.message}",
                hint=self._how_to_go_on(),
            ) from error
        self._drop_mailbox()
        self._line, self._mailbox = line, line.new_mailbox()
        self._parts.clear()
        self._moving.clear()
        self._unasked = set(self._left)

    def _how_to_go_on(self) -> str:
        jobs = [self._jobs[index] for index in sorted(self._left & self._jobs.keys())]
        is_kept = self._order is None or self._order.cache is not CachePolicy.OFF
        if not jobs or not is_kept:
            return RUN_AGAIN
        named = " ".join(jobs[:_NAMED_JOBS]) + (" …" if len(jobs) > _NAMED_JOBS else "")
        return f"the jobs go on: `sdq attach {named}` brings the pictures, or {RUN_AGAIN}"

    # ------------------------------------------------------------ reading

    def _read(self, reply: Reply) -> News | None:
        part = self._parts.get(reply.request_id or 0)
        if part is None:
            return None
        if isinstance(reply, ErrorReply):
            self._end(part)
            raise from_code(reply.code, reply.message, reply.hint)
        if isinstance(reply, Accepted):
            return self._accepted(part, reply)
        if isinstance(reply, Progress):
            return self._progress(part, reply)
        if isinstance(reply, Picture | Failure):
            return self._outcome(part, reply)
        raise ProtocolError(f"the server answered with {type(reply).__name__}")

    def _accepted(self, part: Part, accepted: Accepted) -> Accepted:
        self._was_accepted = True
        planned = []
        for item in accepted.pictures:
            index = self._index(part, item.index)
            if index is None:
                continue
            if item.job_id is not None:
                self._jobs[index] = item.job_id
            if part.is_attach:
                origin = self._origins.get(index, item.cache)
                item = msgspec.structs.replace(item, index=index, cache=origin)
            elif item.cache is not Origin.HIT:
                self._origins[index] = item.cache
            planned.append(item)
        return msgspec.structs.replace(accepted, pictures=tuple(planned))

    def _progress(self, part: Part, progress: Progress) -> Progress | None:
        index = self._index(part, progress.index)
        if index is None:
            return None
        self._jobs[index] = progress.job_id
        self._moving.add(index)
        if progress.index == index:
            return progress
        return msgspec.structs.replace(progress, index=index)

    def _outcome(self, part: Part, reply: Picture | Failure) -> Picture | Failure | None:
        """The end of one picture. Counted before it is told: the reader may leave at it."""
        is_last = reply.remaining <= 0
        index = self._index(part, reply.index)
        part.left.discard(-1 if index is None else index)
        if index is not None and self._is_forgotten(part, index, reply):
            del self._jobs[index]
            self._unasked.add(index)
            index = None
        if index is not None:
            self._left.discard(index)
        if is_last:
            self._end(part)
            if part.left:
                raise ProtocolError("the server ended the request before its last picture")
        if index is None:
            return None
        if isinstance(reply, Picture) and part.is_attach:
            # To an attach all that is drawn by then is a hit; it was made for this request.
            origin = self._origins.get(index, reply.cache)
            reply = msgspec.structs.replace(reply, cache=origin)
        if (reply.index, reply.remaining) == (index, len(self._left)):
            return reply
        return msgspec.structs.replace(reply, index=index, remaining=len(self._left))

    def _is_forgotten(self, part: Part, index: int, reply: Picture | Failure) -> bool:
        """Whether a job that we attached to must be asked for anew."""
        if self._order is None or not part.is_attach or not isinstance(reply, Failure):
            return False
        if reply.code == "cancelled":  # while we were away; later it is somebody's wish
            return index not in self._moving
        return reply.code in _GONE

    def _index(self, part: Part, index: int) -> int | None:
        """The picture's index, if it is one that we still wait for."""
        if part.is_attach:
            if not 0 <= index < len(part.indices):
                return None
            index = part.indices[index]
        return index if index in part.left else None

    # ------------------------------------------------------------ the end

    def _end(self, part: Part) -> None:
        self._parts.pop(part.request_id, None)
        if self._line is not None:
            self._line.forget(part.request_id)

    def _drop_mailbox(self) -> None:
        for part in list(self._parts.values()):
            self._end(part)
        if self._mailbox is not None:
            self._mailbox.close()

    async def _leave(self) -> None:
        """Takes back what is under way, if anything is."""
        parts = list(self._parts.values())
        self._drop_mailbox()
        if not parts or self._line is None:
            return
        outcome = None
        if self._line.broken is None:
            targets = [part.request_id for part in parts]
            with suppress(SdqError):
                outcome = await take_back(self._line, targets)
        if self._when_left is not None:
            self._when_left(outcome)


def _first_run(indices: set[int], most: int) -> tuple[int, ...]:
    """The lowest indices that follow each other."""
    first = last = min(indices)
    while last + 1 in indices and last + 1 - first < most:
        last += 1
    return tuple(range(first, last + 1))
