"""The library's index: a row of the database for each picture. No files here, no memory."""

import json
import math
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

import aiosqlite
import msgspec

from sdq.errors import StackError
from sdq.protocol.messages import StoredPicture
from sdq.server import search_text
from sdq.server.database import Database
from sdq.server.library.memory import StoredImage
from sdq.spec import ImageSpec

_decode_spec = msgspec.json.Decoder(ImageSpec).decode

_FREE_NUMBER = """
WITH RECURSIVE taken (number) AS (
    VALUES (?) UNION ALL
    SELECT taken.number + 1 FROM taken JOIN pictures ON pictures.number = taken.number
) SELECT max(number) FROM taken
"""
PUT = f"""
INSERT INTO pictures
    (number, key, spec, words, negative_words, plain_facts,
    size_bytes, sha256, draw_seconds, created_at, last_used_at)
VALUES (({_FREE_NUMBER}), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    number = excluded.number, spec = excluded.spec, words = excluded.words,
    negative_words = excluded.negative_words, plain_facts = excluded.plain_facts,
    size_bytes = excluded.size_bytes, sha256 = excluded.sha256,
    draw_seconds = excluded.draw_seconds, created_at = excluded.created_at,
    last_used_at = excluded.last_used_at
"""  # noqa: S608 - made of our own constants, as all below
_GET = """
SELECT spec, size_bytes, sha256, draw_seconds, last_used_at, pinned FROM pictures WHERE key = ?
"""
_LAST_USES = """
SELECT key, last_used_at, pinned FROM pictures WHERE key IN (SELECT value FROM json_each(?))
"""
_FOUND = "key, spec, size_bytes, created_at, last_used_at, pinned, number"
_IS_KEPT = "(pinned = 1 OR last_used_at >= ?)"
# In the order of numbers, which both indices have: it ends when it has enough.
_FIND = f"""
SELECT {_FOUND} FROM pictures
WHERE number >= ? AND number < ? AND {_IS_KEPT} ORDER BY number DESC LIMIT ?
"""  # noqa: S608
_FIND_WORDS = f"""
SELECT {_FOUND} FROM pictures_text AS found CROSS JOIN pictures ON number = found.rowid
WHERE pictures_text MATCH ? AND found.rowid >= ? AND found.rowid < ? AND {_IS_KEPT}
ORDER BY found.rowid DESC LIMIT ?
"""  # noqa: S608
_KEYS = "SELECT key FROM pictures WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_REMOVE = """
DELETE FROM pictures WHERE key IN (SELECT value FROM json_each(?)) RETURNING key, size_bytes
"""
_IDLE = """
SELECT key FROM pictures WHERE pinned = 0 AND last_used_at < ? ORDER BY last_used_at LIMIT ?
"""
_LEAST_USED = """
SELECT key, size_bytes FROM pictures WHERE pinned = 0 ORDER BY last_used_at LIMIT ?
"""
_PIN = """
UPDATE pictures SET pinned = ?
WHERE key IN (SELECT value FROM json_each(?)) AND pinned <> ? RETURNING key
"""
_USED = "UPDATE pictures SET last_used_at = max(last_used_at, ?) WHERE key = ?"
_TOTALS = "SELECT pictures, bytes FROM library_totals"
_PINNED_TOTALS = """
SELECT count(*) AS pictures, coalesce(sum(size_bytes), 0) AS bytes FROM pictures WHERE pinned = 1
"""
_NUMBERS_A_SECOND = 1_000_000
_HIGHEST_NUMBER = 2**53


class LibraryStats(NamedTuple):
    pictures: int
    bytes: int  # of the files


class PictureRow(NamedTuple):
    spec: ImageSpec
    size_bytes: int
    sha256: str  # of the file
    draw_seconds: float
    last_used_at: float
    pinned: bool


class Question(NamedTuple):
    """What to look for. Times in seconds since 1970; ``None`` and empty: anything."""

    words: str = ""  # of the prompt, in any order; "phrases", begin*
    negative: str = ""  # the same of the negative prompt
    model: str | None = None
    size: tuple[int, int] | None = None  # width, height
    since: float | None = None  # drawn then or later
    until: float | None = None  # drawn before
    seed: int | None = None
    lora: str | None = None  # a name
    pinned: bool = False  # only those
    before: int | None = None  # older than the picture of that number
    limit: int = 50

    def query(self) -> str | None:
        """See `search_text.query_of`."""
        facts = [
            *([] if self.model is None else [search_text.model_fact(self.model)]),
            *([] if self.size is None else [search_text.size_fact(*self.size)]),
            *([] if self.seed is None else [search_text.seed_fact(self.seed)]),
            *([] if self.lora is None else [search_text.lora_fact(self.lora)]),
            *([search_text.PINNED_FACT] if self.pinned else []),
        ]
        return search_text.query_of(self.words, self.negative, facts)

    def numbers(self) -> tuple[int, int]:
        """The lowest number, and the one that is too high."""
        low = 0 if self.since is None else number_at(self.since)
        highest = _HIGHEST_NUMBER + 1 if self.until is None else number_at(self.until)
        return low, highest if self.before is None else min(highest, self.before)


class DamagedRow(StackError):
    """A row that is no picture's."""


def number_at(moment: float) -> int:
    """The number of a picture drawn then (seconds since 1970), when it is free."""
    return int(max(0.0, min(9e9, moment)) * _NUMBERS_A_SECOND)


def row_of(
    stored: StoredImage, sha256: str, created_at: float, last_used_at: float
) -> tuple[object, ...]:
    """The values for `PUT`."""
    spec = stored.spec
    return (
        *(number_at(created_at), stored.key, msgspec.json.encode(spec).decode()),
        *(search_text.words_of(spec.prompt), search_text.words_of(spec.negative_prompt)),
        *(search_text.facts_of(spec), len(stored.image), sha256, stored.draw_seconds),
        *(created_at, last_used_at),
    )


def _found(row: sqlite3.Row) -> StoredPicture | None:
    """``None`` for a damaged row: the others are found all the same."""
    try:
        spec = _decode_spec(row["spec"])
    except (msgspec.MsgspecError, UnicodeError):
        return None
    times = (row["size_bytes"], row["created_at"], row["last_used_at"])
    return StoredPicture(row["key"], spec, *times, bool(row["pinned"]), row["number"])


class PictureIndex:
    """The rows. What a method changed is committed when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> PictureRow | None:
        """Raises `DamagedRow` for one that nothing can be made of."""
        row = await self._database.fetch_one(_GET, (key,))
        try:
            if row is None:
                return None
            file = row["size_bytes"], row["sha256"], row["draw_seconds"]
            pinned = bool(row["pinned"])
            return PictureRow(_decode_spec(row["spec"]), *file, row["last_used_at"], pinned)
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
        """When each was last used, infinity for what is pinned; keys that are not there are
        left out."""
        rows = await self._database.fetch_all(_LAST_USES, (json.dumps(list(keys)),))
        return {row["key"]: math.inf if row["pinned"] else row["last_used_at"] for row in rows}

    async def find(self, question: Question, used_since: float) -> tuple[list[StoredPicture], bool]:
        """The newest pictures, and whether there are more. Pinned ones count as just used."""
        query = question.query()
        if query is None:
            return [], False
        low, high = question.numbers()
        values = (low, high, used_since, question.limit + 1)
        if query:
            rows = await self._database.fetch_all(_FIND_WORDS, (query, *values))
        else:
            rows = await self._database.fetch_all(_FIND, values)
        some = rows[: question.limit]
        pictures = [picture for row in some if (picture := _found(row)) is not None]
        return pictures, len(rows) > question.limit

    async def pin(self, keys: Collection[str], *, pinned: bool) -> list[str]:
        """Pins pictures or unpins them; those for which that was a change."""
        async with self._database.transaction() as inside:
            values = (int(pinned), json.dumps(list(keys)), int(pinned))
            return [row["key"] for row in await inside.execute_fetchall(_PIN, values)]

    async def keys(self, prefix: str, limit: int = -1) -> list[str]:
        """The first ``limit`` keys that begin so (hexadecimal digits), in order; -1: all."""
        rows = await self._database.fetch_all(_KEYS, (prefix, prefix + "g", limit))
        return [row["key"] for row in rows]

    async def idle(self, used_before: float, limit: int) -> list[str]:
        """Keys last used before that time, the longest unused first; none that are pinned."""
        return [row["key"] for row in await self._database.fetch_all(_IDLE, (used_before, limit))]

    async def least_used(self, excess_bytes: int, limit: int) -> list[str]:
        """At most ``limit`` keys, the longest unused first, just enough to free so many bytes.

        None that are pinned: the files may stay more than they should be.
        """
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

    async def pinned_totals(self) -> LibraryStats:
        """Of those that are pinned alone; one step for each of them."""
        row = await self._database.fetch_one(_PINNED_TOTALS)
        assert row is not None
        return LibraryStats(row["pictures"], row["bytes"])
