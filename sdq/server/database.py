"""The server's one SQLite database: opened, locked, migrated; transactions.

One connection, used by one transaction at a time. The file is in WAL mode with
``synchronous=NORMAL``: after ``kill -9`` all that was committed is there; after a power cut the
last moments may be missing, but the file is sound. Jobs lost that way are asked for again, and a
picture without its row is drawn again, so a flush to the disk at every commit would buy little.
"""

import asyncio
import contextlib
import errno
import logging
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

import aiosqlite

from sdq.errors import StackError, UsageError
from sdq.server import search_text
from sdq.storage import LockFile, LockHeld

DATABASE_NAME = "sdq.sqlite3"
"""In the server's data directory."""

BUSY_TIMEOUT_MILLISECONDS = 5_000
"""How long another program (a backup, the sqlite3 shell) may hold the file."""

OLDEST_SQLITE = (3, 37, 0)  # STRICT tables; RETURNING is older

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_ENVIRONMENT_CODES = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    }
)
"""What the machine did to us; everything else is a defect of ours and stays as it is."""

_DAMAGE_CODES = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_NO_TEXT = "Could not decode to UTF-8"  # Python's own complaint, without a code

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Migration(NamedTuple):
    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """The steps from an empty file to the newest form, from ``sql/NNN_name.sql``."""
    folder = resources.files("sdq.server").joinpath("sql")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [
        Migration(int(name.partition("_")[0]), name, folder.joinpath(name).read_text("utf-8"))
        for name in names
    ]


def script_of(step: Migration) -> str:
    """A migration and its number in one transaction."""
    return f"BEGIN IMMEDIATE;\n{step.sql}\nPRAGMA user_version = {step.number};\nCOMMIT;"


async def finish(work: Awaitable[T]) -> T:
    """Awaits ``work`` to its end even when the caller is cancelled; the cancel is raised then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, or asyncio complains that nobody did
    raise cancelled


def is_damage(error: BaseException) -> bool:
    """Whether SQLite found that the file is not what it wrote."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return str(error).startswith(_NO_TEXT) if code is None else code & 0xFF in _DAMAGE_CODES


class Damaged(StackError):
    """Something in the data is not what was written; other rows may be sound."""


def damaged(message: str) -> Damaged:
    """The error for people about something in the data that only a repair can mend."""
    return Damaged(message, hint="stop the server and run `sdq server check --repair`")


def storage_error(error: BaseException, path: Path) -> StackError | None:
    """The error for people when the disk or the file is to blame, else ``None``."""
    if is_damage(error):
        return damaged(f"{path} is damaged: {error}")
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    number = error.errno if isinstance(error, OSError) else None
    if code == sqlite3.SQLITE_FULL or number in _NO_ROOM:
        return StackError(
            f"the disk that holds {path} is full",
            hint="make room, or lower server.library_max_bytes and run `sdq server prune`",
        )
    if number is not None or (code is not None and code & 0xFF in _ENVIRONMENT_CODES):
        return StackError(
            f"{path} cannot be used: {error}",
            hint="check the disk and who may write there",
        )
    return None


def reraise(error: BaseException, path: Path) -> NoReturn:
    """Raises the `storage_error` of ``error`` when there is one, else ``error`` itself."""
    translated = storage_error(error, path) if isinstance(error, sqlite3.Error | OSError) else None
    if translated is None:
        raise error
    raise translated from error


class Database:
    """Opened with `Database.open`, ended with `close`."""

    def __init__(self, path: Path, lock: LockFile) -> None:
        self.path = path
        self.server_id = ""  # made at the first start, fits `broker.JobId`
        self._lock_file = lock
        self._connection: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[object] | None = None

    @classmethod
    async def open(cls, path: Path) -> "Database":
        """The database at ``path``, brought to the newest form; its folder is made.

        Raises `UsageError` when another server uses it, when a newer sdq wrote it, or when it is
        no database; `StackError` when the disk does not play along.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StackError(
                f"Python's SQLite is {sqlite3.sqlite_version}, too old for the server",
                hint="use a Python that brings SQLite 3.37 or newer",
            )
        database = cls(path, _lock(path))
        try:
            await database._start()
        except BaseException as error:  # a cancel too must not keep the lock; raised again
            await database.close()
            if is_damage(error):
                raise UsageError(
                    f"{path} is no database, or it is damaged: {error}",
                    hint="run `sdq server check --repair`: it saves what can be read",
                ) from error
            reraise(error, path)
        return database

    async def _start(self) -> None:
        # A path that cannot be opened is found out here: aiosqlite does not wait for its thread
        # when connecting fails, and the thread then stumbles over a loop that is gone.
        sqlite3.connect(self.path).close()
        # isolation_level=None: we say BEGIN ourselves.
        self._connection = connection = aiosqlite.connect(self.path, isolation_level=None)
        await finish(connection)
        connection.row_factory = sqlite3.Row
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "cell_size_check = ON",  # finds damage sooner
        ):
            await connection.execute_fetchall(f"PRAGMA {pragma}")
        await migrate(connection, migrations(), self.path)
        async with self.transaction() as inside:
            await inside.execute_fetchall(
                "INSERT INTO meta VALUES ('server_id', ?) ON CONFLICT DO NOTHING",
                (secrets.token_hex(8),),
            )
        row = await self.fetch_one("SELECT value FROM meta WHERE name = 'server_id'")
        assert row is not None
        self.server_id = row["value"]

    async def close(self) -> None:
        """Waits for the transaction under way, then closes. May be called twice."""
        async with self._lock:
            connection, self._connection = self._connection, None
            try:
                if connection is not None:
                    await finish(connection.close())
            except sqlite3.Error as error:
                _log.error("%s: could not be closed in good order: %s", self.path, error)
            finally:
                self._lock_file.release()

    async def fetch_all(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of a query. Sees only what is committed, except within one's transaction."""
        if self._owner is not None and self._owner is asyncio.current_task():
            return await self._fetch(sql, parameters)
        async with self._lock:
            return await self._fetch(sql, parameters)

    async def fetch_one(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Row | None:
        """The first row of a query that has one at most."""
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    async def _fetch(self, sql: str, parameters: Sequence[object]) -> list[sqlite3.Row]:
        try:
            return list(await self._live().execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            reraise(error, self.path)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """All or nothing: committed at the end, undone on any exception, a cancel included.

        A cancel that arrives during the commit itself is raised after it: then it is committed.
        Raises `StackError` when the disk is full or broken. Does not nest.
        """
        task = asyncio.current_task()
        if self._owner is not None and self._owner is task:
            raise RuntimeError("transactions do not nest")
        async with self._lock:
            connection = self._live()
            self._owner = task
            try:
                await connection.execute_fetchall("BEGIN IMMEDIATE")
                yield connection
                await finish(connection.commit())
            except BaseException as error:  # noqa: BLE001 - undone, then raised again
                # Also after a cancelled BEGIN: SQLite's thread runs both, in this order.
                await self._roll_back(connection)
                reraise(error, self.path)
            finally:
                self._owner = None

    async def _roll_back(self, connection: aiosqlite.Connection) -> None:
        """SQLite has done it itself after the worst errors, and says so."""
        try:
            await finish(connection.rollback())
        except sqlite3.Error as error:
            _log.error("%s: a transaction could not be undone: %s", self.path, error)

    def _live(self) -> aiosqlite.Connection:
        if self._connection is None:
            raise StackError("the server's database is closed")
        return self._connection


async def migrate(connection: aiosqlite.Connection, steps: Sequence[Migration], path: Path) -> None:
    """Applies the steps that the file has not seen, each in one transaction with its number."""
    function, arguments, meaning = search_text.FUNCTION
    await connection.create_function(function, arguments, meaning, deterministic=True)
    rows = list(await connection.execute_fetchall("PRAGMA user_version"))
    version, newest = rows[0][0], steps[-1].number
    if version > newest:
        raise UsageError(
            f"{path} was written by a newer sdq (form {version}, this one knows {newest})",
            hint="install that version of sdq again, or choose another data directory",
        )
    for step in steps:
        if step.number > version:
            try:
                await connection.executescript(script_of(step))
            except BaseException:  # a cancel too leaves no half step; raised again
                await finish(connection.rollback())
                raise


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the database at ``path`` as a server does. Raises `UsageError` when one runs."""
    lock = _lock(path)
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path) -> LockFile:
    """A lock beside the database, held. Raises `UsageError`."""
    try:
        return LockFile(path.with_name(path.name + ".lock")).acquire()
    except LockHeld as held:
        raise UsageError(
            f"another sdq (process {held.pid}) uses the data directory {path.parent}",
            hint="stop it first, or choose another one with --data-dir",
        ) from held
    except OSError as error:
        raise UsageError(
            f"the data directory {path.parent} cannot be used: {error.strerror}",
            hint="choose another one with --data-dir",
        ) from error
