"""The library: pictures by their key, in memory, in files and in the database's index.

A picture is here whole or not at all: `sdq.server.library.store` sees to that.
Retention counts from the last use, not from the day a picture was drawn: what is asked for stays.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sdq.errors import StackError, UsageError
from sdq.protocol.messages import StoredPicture
from sdq.server.database import Database, finish
from sdq.server.library.files import PictureFiles
from sdq.server.library.index import LibraryStats, PictureIndex, Question
from sdq.server.library.memory import MemoryCache, StoredImage
from sdq.server.library.store import PictureStore, Settle
from sdq.spec import ImageSpec

__all__ = ["Library", "LibraryStats", "Question", "StoredImage"]

SECONDS_A_DAY = 86_400
MAX_PENDING_USES = 10_000
"""Last-used times that wait for one common write."""

REMOVAL_BATCH = 200
"""Pictures removed in one transaction, so that others get their turn in between."""

_log = logging.getLogger(__name__)


class Library:
    """Opened with `Library.open`; `close` writes what is left to write."""

    def __init__(
        self,
        database: Database,
        directory: Path,
        *,
        retention_days: float,
        max_bytes: int,
        memory_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.retention_seconds = retention_days * SECONDS_A_DAY
        self.max_bytes = max_bytes
        self._index = PictureIndex(database)
        self._store = PictureStore(self._index, PictureFiles(directory))
        self._memory = MemoryCache(memory_bytes, self.retention_seconds)
        self._clock = clock
        self._used: dict[str, float] = {}
        self._changing = asyncio.Lock()  # held while files are written or deleted
        self._changes = 0  # a picture read while this moved on may be an old one

    @classmethod
    async def open(
        cls,
        database: Database,
        directory: Path,
        *,
        retention_days: float,
        max_bytes: int,
        memory_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> "Library":
        """The library below ``directory``, rid of what a killed server left half done.

        Raises `StackError` when the directory cannot be used.
        """
        library = cls(
            database,
            directory,
            retention_days=retention_days,
            max_bytes=max_bytes,
            memory_bytes=memory_bytes,
            clock=clock,
        )
        await library._store.open()
        return library

    def cached(self, key: str) -> StoredImage | None:
        """The picture when it is in memory; marks it used. Never waits: the path of a quick hit."""
        now = self._clock()
        stored = self._memory.get(key, now)
        if stored is not None:
            self._used[key] = now
        return stored

    async def get(self, key: str) -> StoredImage | None:
        """The picture from memory or disk; marks it used. ``None`` for a miss.

        A picture whose file is missing or damaged is a miss, and its row goes; one that the disk
        does not give is a miss too, and is drawn again. Raises `StackError` when the index cannot
        be read. Safe to cancel.
        """
        stored = self.cached(key)
        if stored is not None:
            return stored
        changes = self._changes
        stored, whole = await self._read(key)
        if not whole:
            stored, changes = await self._read_again(key)
        if stored is None:
            return None
        now = self._clock()
        self._used[key] = now
        if changes == self._changes:
            self._memory.add(stored, now)
        if len(self._used) > MAX_PENDING_USES:
            await self._try_to_flush()
        return stored

    async def has(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are in the index and within the retention.

        The files are not looked at: `get` may still find one missing.
        """
        last_uses = await self._index.last_uses(keys)
        return {key for key, last_used_at in last_uses.items() if self._is_fresh(key, last_used_at)}

    async def put(
        self,
        key: str,
        spec: ImageSpec,
        image: bytes,
        draw_seconds: float,
        *,
        settle: Settle | None = None,
    ) -> bool:
        """Takes a picture in, or puts it in the place of the one with this key.

        ``settle`` is called in the transaction that commits the picture's row: what it writes
        and the row are committed together or not at all. When it gives False, or raises, nothing
        has changed: a picture that was there before is there still. It uses the connection that
        it is handed, and no method of the library.

        Whether the picture was taken in: what ``settle`` gave. Raises `StackError` when the disk
        is full or cannot be written; nothing half is left. A cancel waits until the picture is
        in.
        """
        return await finish(self._put(StoredImage(key, spec, image, draw_seconds), settle))

    async def find(self, question: Question) -> tuple[list[StoredPicture], bool]:
        """The newest pictures that answer the question, and whether there are more."""
        await self._try_to_flush()
        return await self._index.find(question, self._clock() - self.retention_seconds)

    async def pin(self, keys: Sequence[str], *, pinned: bool) -> list[str]:
        """Pins pictures, which neither retention nor `max_bytes` take away then, or unpins them.

        Gives the keys for which that was a change; those that are not there are passed over.
        An unpinned picture counts as used just now. Raises `StackError`.
        """
        changed = await self._index.pin(keys, pinned=pinned)
        now = self._clock()
        self._used.update(dict.fromkeys(changed, now))
        return changed

    async def resolve(self, prefix: str) -> str:
        """The one key that begins so. Raises `UsageError` when there is none, or more than one."""
        if not re.fullmatch("[0-9a-f]{1,64}", prefix):
            raise UsageError(
                f"{prefix!r} is not the beginning of a key",
                hint="keys are made of 0-9 and a-f; `sdq library list` shows them",
            )
        keys = await self._index.keys(prefix, limit=2)
        if not keys:
            raise UsageError(
                f"no picture in the library has a key that begins with {prefix}",
                hint="`sdq library list` shows what there is",
            )
        if len(keys) > 1:
            raise UsageError(
                f"more than one picture has a key that begins with {prefix}",
                hint=f"give more of it, such as {keys[0][: len(prefix) + 4]}",
            )
        return keys[0]

    async def remove(self, keys: Sequence[str]) -> tuple[int, int]:
        """Takes pictures out; gives how many there were, and the bytes freed.

        Keys that are not there are passed over. A cancel waits for the batch under way.
        """
        pictures = freed_bytes = 0
        for start in range(0, len(keys), REMOVAL_BATCH):
            removed = await finish(self._remove(keys[start : start + REMOVAL_BATCH]))
            pictures, freed_bytes = pictures + removed[0], freed_bytes + removed[1]
        return pictures, freed_bytes

    async def prune(self) -> tuple[int, int]:
        """Applies the retention: first what was not used for ``retention_days``, then, while the
        files take more than ``max_bytes``, the least recently used.

        Pinned ones stay: when all that is left is pinned, the files may take more than that.
        Gives how many pictures went, and the bytes freed. Safe to cancel: it stops early.
        """
        await self._try_to_flush()
        pictures, freed_bytes = 0, 0
        while batch := await self._next_to_prune():
            removed = await self.remove(batch)
            pictures, freed_bytes = pictures + removed[0], freed_bytes + removed[1]
        return pictures, freed_bytes

    async def stats(self) -> LibraryStats:
        """How many pictures, how many bytes: running totals, no scan."""
        return await self._index.totals()

    async def pinned(self) -> LibraryStats:
        """The same of the pinned ones."""
        return await self._index.pinned_totals()

    async def flush_used(self) -> None:
        """Writes the last-used times that have gathered, in one transaction.

        Raises `StackError` when they cannot be written; they are kept for the next time.
        """
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._index.mark_used(used)
        except BaseException:  # kept for the next time, also when cancelled; raised again
            self._used = used | self._used
            raise

    async def close(self) -> None:
        """Writes the last-used times, when that is possible. The database is left open."""
        await self._try_to_flush()

    def _is_fresh(self, key: str, last_used_at: float) -> bool:
        last = max(last_used_at, self._used.get(key, 0.0))
        return self._clock() - last <= self.retention_seconds

    async def _read(self, key: str) -> tuple[StoredImage | None, bool]:
        """The picture from disk, and whether row and file agree (no row, no quarrel)."""
        return await self._store.read(key, self._is_fresh)

    async def _read_again(self, key: str) -> tuple[StoredImage | None, int]:
        """Row and file disagreed: a `put` came between the two, or the row must go."""
        async with self._changing:
            stored, whole = await self._read(key)
            if not whole:
                _log.warning("picture %s: its row or its file is damaged; removed", key)
                try:
                    await finish(self._delete([key]))
                except StackError as error:  # a miss all the same
                    _log.warning("picture %s cannot be removed: %s", key, error)
            return stored, self._changes

    async def _put(self, stored: StoredImage, settle: Settle | None) -> bool:
        async with self._changing:
            self._changes += 1
            now = self._clock()
            if not await self._store.put(stored, now, settle):
                return False
            self._changes += 1
            self._memory.add(stored, now)
            return True

    async def _remove(self, keys: Sequence[str]) -> tuple[int, int]:
        async with self._changing:
            return await self._delete(keys)

    async def _delete(self, keys: Sequence[str]) -> tuple[int, int]:
        """The caller holds ``_changing``."""
        gone = await self._store.delete(keys)
        self._changes += 1
        for key in gone:
            self._memory.discard(key)
            self._used.pop(key, None)
        return len(gone), sum(gone.values())

    async def _next_to_prune(self) -> list[str]:
        idle = await self._index.idle(self._clock() - self.retention_seconds, REMOVAL_BATCH)
        if idle:
            return idle
        excess_bytes = (await self.stats()).bytes - self.max_bytes
        return await self._index.least_used(excess_bytes, REMOVAL_BATCH) if excess_bytes > 0 else []

    async def _try_to_flush(self) -> None:
        """Reading and pruning go on when the disk is full; last-used times that wait stay few."""
        try:
            await self.flush_used()
        except StackError as error:
            _log.warning("last-used times cannot be written: %s", error)
            if len(self._used) > MAX_PENDING_USES:
                self._used.clear()
