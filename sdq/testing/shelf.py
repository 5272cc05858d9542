"""A library on a data directory that can be opened again and again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sdq.server.database import DATABASE_NAME, Database
from sdq.server.library.library import Library
from sdq.server.queue.job import NewJob
from sdq.server.queue.jobs import JobTable
from sdq.spec import SpecDraft, key_of
from sdq.testing.rig import Clock
from sdq.testing.transport import FINGERPRINT, drawn, resolved


class Shelf:
    """Real SQLite, real files; leaving `open` is a server's end, entering it again a restart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures = root / "library"
        self.clock = Clock()

    @asynccontextmanager
    async def open(
        self, *, max_bytes: int = 10**9, memory_bytes: int = 10**6, days: float = 30
    ) -> AsyncIterator[Library]:
        database = await Database.open(self.root / "sdq.sqlite3")
        try:
            library = await Library.open(
                database,
                self.pictures,
                retention_days=days,
                max_bytes=max_bytes,
                memory_bytes=memory_bytes,
                clock=self.clock,
            )
            yield library
            await library.close()
        finally:
            await database.close()

    async def stock(self, pictures: int, jobs: int = 0) -> list[str]:
        """Fills it: real PNGs that say what they are, and queued jobs of three people; the keys."""
        keys = []
        async with self.open() as library:
            for number in range(pictures):
                spec = resolved(SpecDraft(prompt=f"picture {number}"))
                keys.append(key_of(spec, FINGERPRINT))
                await library.put(keys[-1], spec, drawn(spec), 0.5)
        database = await Database.open(self.root / DATABASE_NAME)
        try:
            table = JobTable(database, clock=self.clock)
            specs = [resolved(SpecDraft(prompt=f"job {number}")) for number in range(jobs)]
            for number, spec in enumerate(specs):
                identity, key = f"10.0.0.{number % 3}", key_of(spec, FINGERPRINT)
                await table.add([NewJob(key, spec, FINGERPRINT, True, identity)])
        finally:
            await database.close()
        return keys

    def path(self, key: str) -> Path:
        return self.pictures / key[:2] / f"{key}.png"

    def files(self) -> set[Path]:
        return {path for path in self.pictures.rglob("*") if path.is_file()}
