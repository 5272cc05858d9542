"""The inside of a server, put together without sockets and without Redis.

Real SQLite, real files; the dispatcher is in memory and the clients are lists.
"""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from sdq.protocol.job_messages import Attach, Submit
from sdq.protocol.messages import Generate
from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.library.library import Library
from sdq.server.queue.roster import Roster
from sdq.server.queue.subscriptions import Request
from sdq.server.wiring import Parts, Storage, wire
from sdq.spec import SpecDraft
from sdq.testing.dispatch import MemoryDispatcher, MemoryReader, begun, drawn, heartbeat

M = TypeVar("M", bound=msgspec.Struct)


@dataclass
class ListeningPeer:
    """A client that keeps all it is told."""

    identity: str = "127.0.0.1"
    is_behind: bool = False
    told: list[msgspec.Struct] = field(default_factory=list)

    def send(self, message: msgspec.Struct) -> None:
        self.told.append(message)

    async def drained(self) -> None:
        pass

    def all(self, kind: type[M]) -> list[M]:
        """The messages of one type, in order."""
        return [message for message in self.told if isinstance(message, kind)]


@dataclass
class Clock:
    """A clock that stands still until it is moved. Seconds."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Rig(Parts):
    """Everything that a request passes through."""

    dispatcher: MemoryDispatcher
    clock: Clock
    ears: MemoryReader

    async def generate(self, peer: ListeningPeer, message: Generate) -> Request:
        """Asks as a session does."""
        request = Request(
            message.request_id, peer, remaining=message.count, wants_preview=message.preview
        )
        await self.generation.generate(message, request)
        return request

    async def attach(
        self, peer: ListeningPeer, *job_ids: str, request_id: int = 1, preview: bool = False
    ) -> Request:
        """Waits for jobs as a session does."""
        request = Request(
            request_id, peer, remaining=len(job_ids), is_attached=True, wants_preview=preview
        )
        await self.attachment.attach(Attach(request_id, job_ids, preview=preview), request)
        return request

    async def submit(
        self, draft: SpecDraft, identity: str = "127.0.0.1", count: int = 1
    ) -> list[str]:
        """The ids of jobs that nobody waits for."""
        submitted = await self.submission.submit(Submit(1, draft, count), identity)
        return [picture.job_id for picture in submitted.pictures if picture.job_id]

    async def state_of(self, job_id: str) -> JobState:
        """As the table has it now."""
        job = await self.table.get(job_id)
        assert job is not None, f"there is no job {job_id}"
        return job.state

    async def draw_all(self) -> None:
        """The worker takes and finishes all that waits."""
        await self.scheduler.dispatch()
        while self.dispatcher.sent:
            job = self.dispatcher.take()
            await self.outcomes.apply(begun(job))
            await self.outcomes.apply(drawn(job, png()))
            await self.scheduler.dispatch()

    def bring_worker(
        self, worker_id: str = "worker-1", *, active: tuple[str, ...] = (), at_once: int = 1
    ) -> None:
        """A ready worker with the default model; it replaces whoever was online."""
        manifest = self.catalog.manifest(None)
        now = self.clock.now
        beat = heartbeat(manifest, worker_id, active=active, sent_at=now, at_once=at_once)
        self.roster.update([beat])


@asynccontextmanager
async def open_rig(
    directory: Path, *, max_count: int = 100, max_queued_jobs: int = 1_000
) -> AsyncIterator[Rig]:
    """A rig on a data directory; opening the same directory again is a restart."""
    clock, ears = Clock(), MemoryReader()
    database = await Database.open(directory / "sdq.sqlite3")
    try:
        library = await Library.open(
            database,
            directory / "library",
            retention_days=30,
            max_bytes=2**30,
            memory_bytes=2**20,
            clock=clock,
        )
        parts = wire(
            Storage(database, Catalog.load(directory / "catalog.toml"), library, clock),
            MemoryDispatcher(),
            Roster(clock),
            ears,
            max_count=max_count,
            max_queued_jobs=max_queued_jobs,
            monotonic=clock,
        )
        yield Rig(**vars(parts), clock=clock, ears=ears)
        await library.close()
    finally:
        await database.close()


def png(width: int = 128, height: int = 128, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A real PNG of one colour."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()
