"""A library on a data directory that can be opened again and again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sdq.server.database import Database
from sdq.server.library import Library
from sdq.testing.rig import Clock


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

    def path(self, key: str) -> Path:
        return self.pictures / key[:2] / f"{key}.png"

    def files(self) -> set[Path]:
        return {path for path in self.pictures.rglob("*") if path.is_file()}
