"""The server: puts the parts together, owns every background task, ends cleanly."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from redis.exceptions import RedisError

from sdq.broker import WorkerEvent
from sdq.config import ServerSettings, Settings
from sdq.errors import ServerBusy, ServerLeaving, StackError
from sdq.protocol.connection import ServerConnection
from sdq.protocol.constants import (
    IDLE_TIMEOUT_SECONDS,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    MAX_REQUESTS_IN_FLIGHT,
)
from sdq.protocol.messages import ClientMessage, ErrorReply, Limits
from sdq.protocol.stream import Stream
from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.handlers import Handlers
from sdq.server.housekeeping import Housekeeping
from sdq.server.library.library import Library
from sdq.server.metrics import Metrics
from sdq.server.metrics_page import MetricsPage
from sdq.server.outboxes import Outboxes
from sdq.server.queue.dispatch import CeleryDispatcher
from sdq.server.queue.events import EventReader
from sdq.server.queue.redis_link import connect
from sdq.server.queue.roster import Roster
from sdq.server.session import Session
from sdq.server.tallies import Tallies
from sdq.server.wiring import Parts, Storage, wire

log = logging.getLogger(__name__)

CANCEL_AGAIN_SECONDS = 0.5
MEETING_SECONDS = 2.0
FAREWELL_SECONDS = 2.0
"""How long slow readers hold up the server's end."""


class Server:
    """A running server. `start` it, `serve_until` told otherwise, `close` it."""

    port: int
    metrics_port = 0  # 0: it tells no metrics

    def __init__(self, settings: Settings, worker_redis_url: str) -> None:
        self._settings = settings
        self._worker_redis_url = worker_redis_url
        self._limits = limits_of(settings.server)
        self._connections: set[asyncio.Task[None]] = set()
        self._sessions: set[Session] = set()
        self._outboxes = Outboxes()
        self._is_leaving = False
        self._owned = AsyncExitStack()
        self._background: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls, settings: Settings, *, redis_url: str, worker_redis_url: str | None = None
    ) -> "Server":
        """Opens the data, begins to listen. Redis may be away: jobs wait until it is back.

        Raises `StackError` when the address is taken, `UsageError` for a broken catalog
        or Redis URL.
        """
        server = cls(settings, worker_redis_url or redis_url)
        try:
            await server._open(redis_url)
            await server._meet_workers()
            await server._listen()
            await server._tell_metrics()
        except BaseException:  # a cancel too must not leave parts open; raised again
            await server.close()
            raise
        return server

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Serves until the event is set. A background task that dies ends this with its error."""
        waiter = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait(
                [waiter, *self._background], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiter.cancel()
        for task in done - {waiter}:
            task.result()

    async def close(self) -> None:
        """Takes leave of all clients, ends background tasks, then the data. Idempotent."""
        await self._owned.aclose()

    # ------------------------------------------------------------ parts

    async def _open(self, redis_url: str) -> None:
        settings, owned = self._settings.server, self._owned
        data_dir = self._settings.data_dir
        catalog = Catalog.load(
            data_dir / "catalog.toml", max_prompt_characters=settings.max_prompt_characters
        )
        database = await Database.open(data_dir / "sdq.sqlite3")
        owned.push_async_callback(database.close)
        self._library = await Library.open(
            database,
            data_dir / "library",
            retention_days=settings.retention_days,
            max_bytes=settings.library_max_bytes,
            memory_bytes=settings.memory_cache_bytes,
        )
        owned.push_async_callback(self._library.close)
        redis = connect(redis_url)
        owned.push_async_callback(redis.aclose)
        dispatcher = CeleryDispatcher(redis, redis_url, database.server_id, catalog.lora_files)
        owned.push_async_callback(dispatcher.close)
        tallies = Tallies()
        self._redis, self._roster = redis, Roster(tallies=tallies)
        reader = EventReader(redis, database.server_id)
        parts = wire(
            Storage(database, catalog, self._library, time.time),
            dispatcher,
            self._roster,
            reader,
            max_count=settings.max_count,
            max_queued_jobs=settings.max_queued_jobs,
            tallies=tallies,
        )
        now = {manifest.model_id: manifest.fingerprint for manifest in catalog.manifests()}
        if cancelled := await parts.table.cancel_stale(now):
            log.info("%d jobs of before are cancelled: nobody can be given them", cancelled)
        self._begin(parts, reader)

    def _begin(self, parts: Parts, reader: EventReader) -> None:
        self._parts = parts

        async def apply(event: WorkerEvent) -> None:
            if await parts.outcomes.apply(event):
                parts.scheduler.wake()

        self._handlers = Handlers(
            self._settings.server,
            parts,
            worker_redis_url=self._worker_redis_url,
            redis_trouble=lambda: reader.trouble,
        )
        self._own(lambda: reader.run(apply, parts.scheduler.take_back), "events")
        self._own(parts.scheduler.run, "dispatch")
        self._own(lambda: parts.subscriptions.wishes.run(parts.dispatcher.show), "previews")
        self._own(lambda: parts.scheduler.watch(self._redis), "watch")
        housekeeping = Housekeeping(self._library, parts.table)
        self._own(lambda: housekeeping.run(self._end_silent_sessions), "housekeeping")
        parts.scheduler.wake()

    def _own(self, run: Callable[[], Awaitable[None]], name: str) -> None:
        async def runner() -> None:
            await run()

        task = asyncio.create_task(runner(), name=name)
        self._background.append(task)
        self._owned.push_async_callback(_end, [task])

    def _end_silent_sessions(self) -> None:
        for session in tuple(self._sessions):
            session.end_if_silent()

    async def _meet_workers(self) -> None:
        """Knows who is online before the first client asks; Redis may be away."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(MEETING_SECONDS):
                await self._roster.refresh(self._redis)

    # ------------------------------------------------------------ connections

    async def _listen(self) -> None:
        host, port = self._settings.server.host, self._settings.server.port
        try:
            listener = await asyncio.start_server(self._connected, host, port, backlog=512)
        except OSError as error:
            raise StackError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="choose another with --port, or stop what listens there",
            ) from error
        self.port = listener.sockets[0].getsockname()[1]

        async def stop_listening() -> None:
            self._is_leaving = True
            listener.close()
            await self._dismiss_all()

        self._owned.push_async_callback(stop_listening)

    async def _tell_metrics(self) -> None:
        if not self._settings.server.metrics:
            return
        parts = self._parts
        metrics = Metrics(parts.tallies, parts.table, self._library, self._roster)
        page = MetricsPage(metrics.page)
        self._owned.push_async_callback(page.close)
        await page.start(self._settings.server.metrics)
        log.info("metrics at port %d, /metrics", page.port)
        self.metrics_port = page.port

    async def _dismiss_all(self) -> None:
        """Every client is told to come back, and has a moment to take what waits for it."""
        leaving = ServerLeaving(
            "the server is stopping",
            hint="sdq connects again by itself while it waits; what was accepted is not lost",
        )
        for session in self._sessions:
            session.dismiss(leaving)
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=FAREWELL_SECONDS)
        await _end(list(self._connections))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_leaving:  # it came in the same moment
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        connection = ServerConnection(self._limits)
        stream = Stream(connection, reader, writer)
        try:
            if len(self._connections) > self._settings.server.max_connections:
                await _turn_away(stream)
            else:
                await self._serve(
                    Session(stream, connection, self._handlers, self._limits, self._outboxes)
                )
        except asyncio.CancelledError:
            pass  # the server is closing; asyncio would log a cancelled callback as a defect
        finally:
            self._connections.discard(task)

    async def _serve(self, session: Session) -> None:
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)


async def _turn_away(stream: Stream[ClientMessage]) -> None:
    busy = ServerBusy("this server has no connection left", hint="try again later")
    stream.send_error(ErrorReply(None, busy.code, busy.message, busy.hint))
    await stream.linger()
    await stream.close()


def limits_of(settings: ServerSettings) -> Limits:
    """What the server tells its clients of its settings."""
    return Limits(
        max_request_bytes=MAX_REQUEST_BYTES,
        max_reply_bytes=MAX_REPLY_BYTES,
        max_prompt_characters=settings.max_prompt_characters,
        max_count=settings.max_count,
        max_requests_in_flight=MAX_REQUESTS_IN_FLIGHT,
        idle_timeout_seconds=IDLE_TIMEOUT_SECONDS,
    )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancels tasks and waits for them; their errors were reported where they matter.

    Asks again while one is left: redis-py 8.1 can swallow a cancel while it connects.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
