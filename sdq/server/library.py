"""The library: pictures by their key, in memory, in files and in the database's index.

A picture is here whole or not at all. Writing goes file first, row second: the file is written
beside its place and flushed, takes its place inside the transaction that writes the row, and
that one is committed last. Removing goes row first, file second. So whatever is killed when
leaves a file without a row, which `Library.open` sweeps away, and never a row that answers with
half a picture: a file that is missing, or whose hash is not the row's, is a miss.

Retention counts from the last use, not from the day a picture was drawn: what is asked for stays.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import aiosqlite

from sdq.errors import StackError, UsageError
from sdq.protocol.messages import StoredPicture
from sdq.server.database import Database, finish, reraise
from sdq.server.files import FOLDERS, PictureFiles, sha256_of
from sdq.server.index import LibraryStats, PictureIndex, PictureRow
from sdq.server.memory import MemoryCache, StoredImage
from sdq.spec import ImageSpec

__all__ = ["Library", "LibraryStats", "StoredImage"]

SECONDS_A_DAY = 86_400
MAX_PENDING_USES = 10_000
"""Last-used times that wait for one common write."""

REMOVAL_BATCH = 200
"""Pictures removed in one transaction, so that others get their turn in between."""

Settle = Callable[[aiosqlite.Connection], Awaitable[bool]]
P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class _NotSettled(Exception):
    """Ends a transaction of `Library.put` in which ``settle`` gave False."""


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
        self._files = PictureFiles(directory)
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
        try:
            await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
            await library._sweep()
        except OSError as error:
            reraise(error, directory)
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

        A picture whose file is missing or damaged is a miss, and its row goes. Raises
        `StackError` when the disk cannot be read. Safe to cancel.
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

    async def find(self, words: str, limit: int) -> list[StoredPicture]:
        """The newest pictures whose prompt holds all of the words, whatever their case."""
        await self._try_to_flush()
        return await self._index.find(words, limit, self._clock() - self.retention_seconds)

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

    async def flush_used(self) -> None:
        """Writes the last-used times that have gathered, in one transaction.

        Raises `StackError` when they cannot be written; they are kept for the next time.
        """
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._index.mark_used(used)
        except BaseException:
            self._used = used | self._used
            raise

    async def close(self) -> None:
        """Writes the last-used times. The database is left open."""
        await self.flush_used()

    def _is_fresh(self, key: str, last_used_at: float) -> bool:
        last = max(last_used_at, self._used.get(key, 0.0))
        return self._clock() - last <= self.retention_seconds

    async def _read(self, key: str) -> tuple[StoredImage | None, bool]:
        """The picture from disk, and whether row and file agree (no row, no quarrel)."""
        row = await self._index.get(key)
        if row is None or not self._is_fresh(key, row.last_used_at):
            return None, True
        try:
            stored = await asyncio.to_thread(self._load, key, row)
        except OSError as error:
            reraise(error, self._files.path_of(key))
        return stored, stored is not None

    def _load(self, key: str, row: PictureRow) -> StoredImage | None:
        """In a thread: the picture of a row, when its file is whole."""
        image = self._files.read(key, row.size_bytes)
        if image is None or sha256_of(image) != row.sha256:
            return None
        return StoredImage(key, row.spec, image, row.draw_seconds)

    async def _read_again(self, key: str) -> tuple[StoredImage | None, int]:
        """Row and file disagreed: a `put` came between the two, or the row must go."""
        async with self._changing:
            stored, whole = await self._read(key)
            if not whole:
                _log.warning("picture %s: its file is missing or damaged; removed", key)
                await finish(self._delete([key]))
            return stored, self._changes

    async def _put(self, stored: StoredImage, settle: Settle | None) -> bool:
        async with self._changing:
            self._changes += 1
            sha256 = await self._on_disk(self._files.stage, stored.key, stored.image)
            now = self._clock()
            placed = False

            async def then(inside: aiosqlite.Connection) -> None:
                nonlocal placed
                if settle is not None and not await settle(inside):
                    raise _NotSettled
                await self._on_disk(self._files.place, stored.key)
                placed = True

            try:
                await self._index.put(stored, sha256, now, then=then)
            except BaseException as error:
                await self._tidy(self._files.displace if placed else self._files.unstage, stored)
                if isinstance(error, _NotSettled):
                    return False
                raise
            self._changes += 1
            self._memory.add(stored, now)
            await self._tidy(self._files.settle, stored)
            return True

    async def _tidy(self, step: Callable[[str], None], stored: StoredImage) -> None:
        """What cannot be tidied up now is a miss at worst, and swept at the next start."""
        try:
            await self._on_disk(step, stored.key)
        except StackError as error:
            _log.warning("picture %s: %s", stored.key, error)

    async def _on_disk(self, step: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """In a thread: what the disk says is said in words."""
        try:
            return await asyncio.to_thread(step, *arguments, **named)
        except OSError as error:
            reraise(error, self._files.directory)

    async def _remove(self, keys: Sequence[str]) -> tuple[int, int]:
        async with self._changing:
            return await self._delete(keys)

    async def _delete(self, keys: Sequence[str]) -> tuple[int, int]:
        """Rows, then files; the caller holds ``_changing``."""
        gone = await self._index.remove(keys)
        self._changes += 1
        for key in gone:
            self._memory.discard(key)
            self._used.pop(key, None)
        try:
            await asyncio.to_thread(self._files.remove, gone)
        except OSError as error:
            reraise(error, self._files.directory)
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

    async def _sweep(self) -> None:
        """Folder by folder, so that memory stays small: files without row, rows without file."""
        for folder in FOLDERS:
            known = set(await self._index.keys(folder))
            deleted, missing = await asyncio.to_thread(self._files.sweep, folder, known)
            if missing:
                await self._delete(sorted(missing))
            if deleted or missing:
                _log.info("swept %s: %d files, %d rows", folder, deleted, len(missing))
