"""The way to one server: a connection at a time, and another one when it is lost."""

import asyncio

from sdq.client.connection import Line
from sdq.client.losses import may_pass
from sdq.errors import ConnectionFailed, SdqError

FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
"""Between two tries; doubled each time from the one to the other."""

STEADY_SECONDS = 5.0
"""A new connection that breaks sooner does not begin the waiting anew: a server that dies at
each start is given up in the end."""


class Connector:
    """Holds the open `Line`. All requests share it, and one search for the server."""

    def __init__(
        self,
        host: str,
        port: int,
        line: Line,
        *,
        connect_timeout_seconds: float,
        reconnect_seconds: float,
    ) -> None:
        self.line = line
        self.reconnect_seconds = reconnect_seconds
        self._host = host
        self._port = port
        self._connect_timeout_seconds = connect_timeout_seconds
        self._replacing = asyncio.Lock()
        self._search: asyncio.Task[Line] | None = None
        self._waiting = 0
        self._is_closed = False
        self._delay_seconds = FIRST_DELAY_SECONDS
        self._give_up_at: float | None = None

    @classmethod
    async def open(
        cls, host: str, port: int, *, connect_timeout_seconds: float, reconnect_seconds: float
    ) -> "Connector":
        """The first connection: tried once. Raises as `Line.open`; safe to cancel."""
        return cls(
            host,
            port,
            await Line.open(host, port, timeout_seconds=connect_timeout_seconds),
            connect_timeout_seconds=connect_timeout_seconds,
            reconnect_seconds=reconnect_seconds,
        )

    async def usable(self) -> Line:
        """The line, or a new one in place of a broken one, tried once. Safe to cancel.

        Raises as `Line.open`, and `ConnectionFailed` after `close`.
        """
        if self.line.broken is None:
            return self.line
        async with self._replacing:
            self._refuse_closed()
            if self.line.broken is not None:
                line = await Line.open(
                    self._host, self._port, timeout_seconds=self._connect_timeout_seconds
                )
                if self._is_closed:
                    await line.close()
                    self._refuse_closed()
                lost, self.line = self.line, line
                lost.abort()
                await lost.close()
            return self.line

    async def again(self, lost: Line) -> Line:
        """A line in place of one that broke; tried for ``reconnect_seconds``. Safe to cancel.

        Raises `ConnectionFailed` when time is up, at once when there is no time for it, and
        what cannot pass, such as `NotAllowed`.
        """
        if self.line is not lost and self.line.broken is None:
            return self.line
        self._refuse_closed()
        if self._search is None:
            self._search = asyncio.create_task(self._find(lost), name="sdq client: reconnect")
        search = self._search
        self._waiting += 1
        try:
            return await asyncio.shield(search)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if search.cancelled() and task is not None and not task.cancelling():
                self._refuse_closed()
            raise
        finally:
            self._waiting -= 1
            if search.done() or not self._waiting:
                await self._end_search(search)

    async def close(self) -> None:
        """Ends the connection and the search. What is still asked gets `ConnectionFailed`."""
        self._is_closed = True
        if self._search is not None:
            await self._end_search(self._search)
        await self.line.close()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise ConnectionFailed("this connection was closed")

    async def _end_search(self, search: asyncio.Task[Line]) -> None:
        if self._search is search:
            self._search = None
        search.cancel()
        await asyncio.gather(search, return_exceptions=True)

    async def _find(self, lost: Line) -> Line:
        clock = asyncio.get_running_loop().time
        if self._give_up_at is None or lost.age_seconds >= STEADY_SECONDS:
            self._give_up_at = clock() + self.reconnect_seconds
            self._delay_seconds = FIRST_DELAY_SECONDS
        last = lost.broken or ConnectionFailed("lost the server")
        try:
            async with asyncio.timeout(self._give_up_at - clock()):
                while True:
                    await asyncio.sleep(self._next_delay_seconds())
                    try:
                        return await self.usable()
                    except SdqError as error:
                        if not may_pass(error):
                            raise
                        last = error
        except TimeoutError:
            raise ConnectionFailed(last.message, hint=last.hint) from last

    def _next_delay_seconds(self) -> float:
        """Clients that lost the server at the same moment do not all come back at the same."""
        import random  # 4 ms at the start of every command otherwise

        delay_seconds = self._delay_seconds * random.uniform(0.5, 1.0)  # noqa: S311  no secret
        self._delay_seconds = min(2 * self._delay_seconds, MAX_DELAY_SECONDS)
        return delay_seconds
