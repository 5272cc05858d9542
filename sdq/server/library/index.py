"""The library's index: a row of the database for each picture. No files here, no memory."""

import json
import sqlite3
import unicodedata
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

import aiosqlite
import msgspec

from sdq.errors import StackError
from sdq.protocol.messages import StoredPicture
from sdq.server.database import Database
from sdq.server.library.memory import StoredImage
from sdq.spec import ImageSpec

_decode_spec = msgspec.json.Decoder(ImageSpec).decode

PUT = """
INSERT INTO pictures
    (key, spec, search_text, size_bytes, sha256, draw_seconds, created_at, last_used_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    spec = excluded.spec, search_text = excluded.search_text, size_bytes = excluded.size_bytes,
    sha256 = excluded.sha256, draw_seconds = excluded.draw_seconds,
    created_at = excluded.created_at, last_used_at = excluded.last_used_at
"""
_GET = "SELECT spec, size_bytes, sha256, draw_seconds, last_used_at FROM pictures WHERE key = ?"
_LAST_USES = """
SELECT key, last_used_at FROM pictures WHERE key IN (SELECT value FROM json_each(?))
"""
# instr, not LIKE: nothing in it needs escaping, and both sides have their case folded already.
_FIND = """
SELECT key, spec, size_bytes, created_at, last_used_at FROM pictures
WHERE last_used_at >= ?
    AND NOT EXISTS (SELECT 1 FROM json_each(?) WHERE instr(search_text, value) = 0)
ORDER BY created_at DESC, key LIMIT ?
"""
_KEYS = "SELECT key FROM pictures WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_REMOVE = """
DELETE FROM pictures WHERE key IN (SELECT value FROM json_each(?)) RETURNING key, size_bytes
"""
_IDLE = "SELECT key FROM pictures WHERE last_used_at < ? ORDER BY last_used_at LIMIT ?"
_LEAST_USED = "SELECT key, size_bytes FROM pictures ORDER BY last_used_at LIMIT ?"
_USED = "UPDATE pictures SET last_used_at = max(last_used_at, ?) WHERE key = ?"
_TOTALS = "SELECT pictures, bytes FROM library_totals"


class LibraryStats(NamedTuple):
    pictures: int
    bytes: int  # of the files


class PictureRow(NamedTuple):
    spec: ImageSpec
    size_bytes: int
    sha256: str  # of the file
    draw_seconds: float
    last_used_at: float


class DamagedRow(StackError):
    """A row that is no picture's."""


def fold(text: str) -> str:
    """Text for searching: case and ways to write the same letter make no difference."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return folded.replace("\0", "\ufffd")  # SQLite's JSON ends a text at a zero


def row_of(
    stored: StoredImage, sha256: str, created_at: float, last_used_at: float
) -> tuple[object, ...]:
    """The values for `PUT`."""
    return (
        *(stored.key, msgspec.json.encode(stored.spec).decode(), fold(stored.spec.prompt)),
        *(len(stored.image), sha256, stored.draw_seconds, created_at, last_used_at),
    )


def _found(row: sqlite3.Row) -> StoredPicture | None:
    """``None`` for a damaged row: the others are found all the same."""
    try:
        return StoredPicture(row["key"], _decode_spec(row["spec"]), *row[2:])
    except (msgspec.MsgspecError, UnicodeError):
        return None


class PictureIndex:
    """The rows. What a method changed is committed when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> PictureRow | None:
        """Raises `DamagedRow` for one that nothing can be made of."""
        row = await self._database.fetch_one(_GET, (key,))
        try:
            return None if row is None else PictureRow(_decode_spec(row["spec"]), *row[1:])
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise DamagedRow(f"the row of picture {key} is damaged: {error}") from error

    async def put(
        self,
        stored: StoredImage,
        sha256: str,
        now: float,
        *,
        then: Callable[[aiosqlite.Connection], Awaitable[None]] | None = None,
    ) -> None:
        """Adds or replaces a row.

        ``then`` goes on in the same transaction; what it raises undoes everything.
        """
        async with self._database.transaction() as inside:
            await inside.execute_fetchall(PUT, row_of(stored, sha256, now, now))
            if then is not None:
                await then(inside)

    async def remove(
        self,
        keys: Collection[str],
        *,
        then: Callable[[Collection[str]], Awaitable[None]] | None = None,
    ) -> dict[str, int]:
        """Removes rows; gives the sizes in bytes of those that were there.

        ``then`` hears of these before the commit; what it raises undoes everything.
        """
        async with self._database.transaction() as inside:
            rows = await inside.execute_fetchall(_REMOVE, (json.dumps(list(keys)),))
            gone = {row["key"]: row["size_bytes"] for row in rows}
            if then is not None:
                await then(gone)
        return gone

    async def mark_used(self, used: Mapping[str, float]) -> None:
        """Moves last-used times forward, never back; keys that are gone are passed over."""
        async with self._database.transaction() as inside:
            await inside.executemany(_USED, [(at, key) for key, at in used.items()])

    async def last_uses(self, keys: Collection[str]) -> dict[str, float]:
        """When each was last used; keys that are not there are left out."""
        rows = await self._database.fetch_all(_LAST_USES, (json.dumps(list(keys)),))
        return {row["key"]: row["last_used_at"] for row in rows}

    async def find(self, words: str, limit: int, used_since: float) -> list[StoredPicture]:
        """The newest pictures whose prompt holds all of the words, whatever their case."""
        wanted = json.dumps([fold(word) for word in words.split()])
        rows = await self._database.fetch_all(_FIND, (used_since, wanted, limit))
        return [picture for row in rows if (picture := _found(row)) is not None]

    async def keys(self, prefix: str, limit: int = -1) -> list[str]:
        """The first ``limit`` keys that begin so (hexadecimal digits), in order; -1: all."""
        rows = await self._database.fetch_all(_KEYS, (prefix, prefix + "g", limit))
        return [row["key"] for row in rows]

    async def idle(self, used_before: float, limit: int) -> list[str]:
        """Keys last used before that time, the longest unused first."""
        return [row["key"] for row in await self._database.fetch_all(_IDLE, (used_before, limit))]

    async def least_used(self, excess_bytes: int, limit: int) -> list[str]:
        """At most ``limit`` keys, the longest unused first, just enough to free so many bytes."""
        batch: list[str] = []
        for row in await self._database.fetch_all(_LEAST_USED, (limit,)):
            if excess_bytes <= 0:
                break
            batch.append(row["key"])
            excess_bytes -= row["size_bytes"]
        return batch

    async def totals(self) -> LibraryStats:
        row = await self._database.fetch_one(_TOTALS)
        assert row is not None
        return LibraryStats(row["pictures"], row["bytes"])
