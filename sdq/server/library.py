"""The library: pictures by their key, in memory, in files and in the database's index.

A picture is here whole or not at all. Writing goes file first, row second; removing goes row
first, file second. So whatever is killed when leaves a file without a row, which `Library.open`
sweeps away, and never a row that answers with half a picture: a file that is missing, or whose
hash is not the row's, is a miss.

Retention counts from the last use, not from the day a picture was drawn: what is asked for stays.
"""

import asyncio
import json
import logging
import re
import sqlite3
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sdq.errors import StackError, UsageError
from sdq.protocol.messages import StoredPicture
from sdq.server.database import Database, finish, reraise
from sdq.server.files import FOLDERS, PictureFiles, sha256_of
from sdq.server.memory import MemoryCache, StoredImage
from sdq.spec import ImageSpec

__all__ = ["Library", "LibraryStats", "StoredImage"]

SECONDS_A_DAY = 86_400
MAX_PENDING_USES = 10_000
"""Last-used times that wait for one common write."""

REMOVAL_BATCH = 200
"""Pictures removed in one transaction, so that others get their turn in between."""

_log = logging.getLogger(__name__)
_decode_spec = msgspec.json.Decoder(ImageSpec).decode

_PUT = """
INSERT INTO pictures
    (key, spec, search_text, size_bytes, sha256, draw_seconds, created_at, last_used_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    spec = excluded.spec, search_text = excluded.search_text, size_bytes = excluded.size_bytes,
    sha256 = excluded.sha256, draw_seconds = excluded.draw_seconds,
    created_at = excluded.created_at, last_used_at = excluded.last_used_at
"""
_GET = "SELECT spec, size_bytes, sha256, draw_seconds, last_used_at FROM pictures WHERE key = ?"
_HAS = """
SELECT key, last_used_at FROM pictures WHERE key IN (SELECT value FROM json_each(?))
"""
# instr, not LIKE: nothing in it needs escaping, and both sides have their case folded already.
_FIND = """
SELECT key, spec, size_bytes, created_at, last_used_at FROM pictures
WHERE last_used_at >= ?
    AND NOT EXISTS (SELECT 1 FROM json_each(?) WHERE instr(search_text, value) = 0)
ORDER BY created_at DESC, key LIMIT ?
"""
_RESOLVE = "SELECT key FROM pictures WHERE key >= ? AND key < ? ORDER BY key LIMIT 2"
_REMOVE = """
DELETE FROM pictures WHERE key IN (SELECT value FROM json_each(?)) RETURNING key, size_bytes
"""
_IDLE = "SELECT key FROM pictures WHERE last_used_at < ? ORDER BY last_used_at LIMIT ?"
_LEAST_USED = "SELECT key, size_bytes FROM pictures ORDER BY last_used_at LIMIT ?"
_USED = "UPDATE pictures SET last_used_at = max(last_used_at, ?) WHERE key = ?"
_FOLDER = "SELECT key FROM pictures WHERE key >= ? AND key < ?"


class LibraryStats(NamedTuple):
    pictures: int
    bytes: int  # of the files


def fold(text: str) -> str:
    """Text for searching: case and ways to write the same letter make no difference."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


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
        self._database = database
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
            await self._flush_or_forget()
        return stored

    async def has(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are in the index and within the retention.

        The files are not looked at: `get` may still find one missing.
        """
        rows = await self._database.fetch_all(_HAS, (json.dumps(list(keys)),))
        return {row["key"] for row in rows if self._is_fresh(row["key"], row["last_used_at"])}

    async def put(self, key: str, spec: ImageSpec, image: bytes, draw_seconds: float) -> None:
        """Takes a picture in, or puts it in the place of the one with this key.

        Raises `StackError` when the disk is full or cannot be written; nothing half is left.
        A cancel waits until the picture is in.
        """
        await finish(self._put(StoredImage(key, spec, image, draw_seconds)))

    async def find(self, words: str, limit: int) -> list[StoredPicture]:
        """The newest pictures whose prompt holds all of the words, whatever their case."""
        await self.flush_used()
        wanted = json.dumps([fold(word) for word in words.split()])
        oldest = self._clock() - self.retention_seconds
        rows = await self._database.fetch_all(_FIND, (oldest, wanted, limit))
        return [
            StoredPicture(
                key=row["key"],
                spec=_decode_spec(row["spec"]),
                size_bytes=row["size_bytes"],
                created_at=row["created_at"],
                last_used_at=row["last_used_at"],
            )
            for row in rows
        ]

    async def resolve(self, prefix: str) -> str:
        """The one key that begins so. Raises `UsageError` when there is none, or more than one."""
        if not re.fullmatch("[0-9a-f]{1,64}", prefix):
            raise UsageError(
                f"{prefix!r} is not the beginning of a key",
                hint="keys are made of 0-9 and a-f; `sdq library list` shows them",
            )
        rows = await self._database.fetch_all(_RESOLVE, (prefix, prefix + "g"))
        if not rows:
            raise UsageError(
                f"no picture in the library has a key that begins with {prefix}",
                hint="`sdq library list` shows what there is",
            )
        if len(rows) > 1:
            raise UsageError(
                f"more than one picture has a key that begins with {prefix}",
                hint=f"give more of it, such as {rows[0]['key'][: len(prefix) + 4]}",
            )
        return str(rows[0]["key"])

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
        await self.flush_used()
        pictures, freed_bytes = 0, 0
        while batch := await self._next_to_prune():
            removed = await self.remove(batch)
            pictures, freed_bytes = pictures + removed[0], freed_bytes + removed[1]
        return pictures, freed_bytes

    async def stats(self) -> LibraryStats:
        """How many pictures, how many bytes: running totals, no scan."""
        row = await self._database.fetch_one("SELECT pictures, bytes FROM library_totals")
        assert row is not None
        return LibraryStats(row["pictures"], row["bytes"])

    async def flush_used(self) -> None:
        """Writes the last-used times that have gathered, in one transaction.

        Raises `StackError` when they cannot be written; they are kept for the next time.
        """
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.transaction() as inside:
                await inside.executemany(_USED, [(at, key) for key, at in used.items()])
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
        row = await self._database.fetch_one(_GET, (key,))
        if row is None or not self._is_fresh(key, row["last_used_at"]):
            return None, True
        try:
            stored = await asyncio.to_thread(self._load, key, row)
        except OSError as error:
            reraise(error, self._files.path_of(key))
        return stored, stored is not None

    def _load(self, key: str, row: sqlite3.Row) -> StoredImage | None:
        """In a thread: the picture of a row, when its file is whole."""
        image = self._files.read(key, row["size_bytes"])
        if image is None or sha256_of(image) != row["sha256"]:
            return None
        return StoredImage(key, _decode_spec(row["spec"]), image, row["draw_seconds"])

    async def _read_again(self, key: str) -> tuple[StoredImage | None, int]:
        """Row and file disagreed: a `put` came between the two, or the row must go."""
        async with self._changing:
            stored, whole = await self._read(key)
            if not whole:
                _log.warning("picture %s: its file is missing or damaged; removed", key)
                await finish(self._delete([key]))
            return stored, self._changes

    async def _put(self, stored: StoredImage) -> None:
        async with self._changing:
            self._changes += 1
            try:
                sha256 = await asyncio.to_thread(self._files.write, stored.key, stored.image)
            except OSError as error:
                reraise(error, self._files.directory)
            now = self._clock()
            size_bytes = len(stored.image)
            spec = msgspec.json.encode(stored.spec).decode()
            search_text = fold(stored.spec.prompt)
            row = (stored.key, spec, search_text, size_bytes, sha256, stored.draw_seconds, now, now)
            try:
                async with self._database.transaction() as inside:
                    await inside.execute_fetchall(_PUT, row)
            except BaseException:
                self._memory.discard(stored.key)
                await asyncio.to_thread(self._files.remove, [stored.key])
                raise
            self._changes += 1
            self._memory.add(stored, now)

    async def _remove(self, keys: Sequence[str]) -> tuple[int, int]:
        async with self._changing:
            return await self._delete(keys)

    async def _delete(self, keys: Sequence[str]) -> tuple[int, int]:
        """Rows, then files; the caller holds ``_changing``."""
        async with self._database.transaction() as inside:
            rows = list(await inside.execute_fetchall(_REMOVE, (json.dumps(list(keys)),)))
        self._changes += 1
        gone = [row["key"] for row in rows]
        for key in gone:
            self._memory.discard(key)
            self._used.pop(key, None)
        try:
            await asyncio.to_thread(self._files.remove, gone)
        except OSError as error:
            reraise(error, self._files.directory)
        return len(rows), sum(row["size_bytes"] for row in rows)

    async def _next_to_prune(self) -> list[str]:
        oldest = self._clock() - self.retention_seconds
        idle = await self._database.fetch_all(_IDLE, (oldest, REMOVAL_BATCH))
        if idle:
            return [row["key"] for row in idle]
        excess_bytes = (await self.stats()).bytes - self.max_bytes
        if excess_bytes <= 0:
            return []
        batch: list[str] = []
        for row in await self._database.fetch_all(_LEAST_USED, (REMOVAL_BATCH,)):
            if excess_bytes <= 0:
                break
            batch.append(row["key"])
            excess_bytes -= row["size_bytes"]
        return batch

    async def _flush_or_forget(self) -> None:
        """Reading must go on when the disk is full: then last-used times are dropped."""
        try:
            await self.flush_used()
        except StackError as error:
            _log.warning("last-used times of %d pictures are lost: %s", len(self._used), error)
            self._used.clear()

    async def _sweep(self) -> None:
        """Folder by folder, so that memory stays small: files without row, rows without file."""
        for folder in FOLDERS:
            rows = await self._database.fetch_all(_FOLDER, (folder, folder + "g"))
            known = {row["key"] for row in rows}
            deleted, missing = await asyncio.to_thread(self._files.sweep, folder, known)
            if missing:
                await self._delete(sorted(missing))
            if deleted or missing:
                _log.info("swept %s: %d files, %d rows", folder, deleted, len(missing))
