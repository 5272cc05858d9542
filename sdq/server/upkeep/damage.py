"""What is wrong with a database file, in words. Only reads; a server may be running."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from sdq.errors import StackError, UsageError
from sdq.protocol.states import JobState
from sdq.server import search_text
from sdq.server.database import BUSY_TIMEOUT_MILLISECONDS, migrations, script_of
from sdq.spec import ImageSpec

MAX_PROBLEMS = 20

_decode_spec = msgspec.json.Decoder(ImageSpec).decode
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class UnreadableRow(ValueError):
    """A row that the server could not work with."""


class Shape(NamedTuple):
    """What a database of ours is made of."""

    objects: frozenset[tuple[str, str]]  # ("table", "jobs"), ("index", "jobs_by_state"), …
    columns: dict[str, tuple[str, ...]]  # of each table


def is_at_rest(path: Path) -> bool:
    """Whether no server has the database open, and none was killed that had."""
    return not path.with_name(path.name + "-wal").exists()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, read-only, also while a server writes to it. Raises `sqlite3.Error`.

    Of a database at rest nothing is written, not even the side files that SQLite would leave
    behind: they would be ours, and the server perhaps somebody else's. What is read is not to
    be trusted when a server was started meanwhile: see `is_at_rest`.
    """
    name = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_at_rest(path) else ''}"
    timeout_seconds = BUSY_TIMEOUT_MILLISECONDS / 1000
    with closing(sqlite3.connect(name, timeout_seconds, isolation_level=None, uri=True)) as found:
        found.execute("PRAGMA cell_size_check = ON")
        yield found


def fresh(path: Path | str, version: int) -> sqlite3.Connection:
    """A new database in the form of that number."""
    connection = sqlite3.connect(path, isolation_level=None)
    upgrade(connection, version)
    return connection


def upgrade(connection: sqlite3.Connection, version: int | None = None) -> None:
    """Brings a database to the form of that number, or to the newest."""
    connection.create_function(*search_text.FUNCTION, deterministic=True)
    present = version_of(connection)
    for step in migrations():
        if present < step.number and (version is None or step.number <= version):
            connection.executescript(script_of(step))


def version_of(connection: sqlite3.Connection) -> int:
    """The number of the database's form; 0: it is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def shape_of(connection: sqlite3.Connection) -> Shape:
    """Its tables, indices and triggers by name, without SQLite's own."""
    rows = connection.execute(
        "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    ).fetchall()
    tables = [name for kind, name in rows if kind == "table"]
    columns = {
        table: tuple(row[0] for row in connection.execute(_COLUMNS, (table,))) for table in tables
    }
    return Shape(frozenset((kind, name) for kind, name in rows), columns)


_COLUMNS = "SELECT name FROM pragma_table_info(?) ORDER BY cid"


def problems_in(path: Path) -> list[str]:
    """What is wrong with the file, a line each, `MAX_PROBLEMS` at most; none when it is sound.

    Raises `UsageError` when it belongs to another program or to a newer sdq, `StackError` when
    it cannot be looked at.
    """
    if not path.exists():
        return ["it is missing"]
    if not path.is_file():
        return ["it is no file"]
    rested = is_at_rest(path)
    problems = _problems_in(path)
    if problems and rested and not is_at_rest(path):
        return _problems_in(path)  # a server was started meanwhile
    return problems


def _problems_in(path: Path) -> list[str]:
    try:
        with reading(path) as connection:
            connection.execute("BEGIN")  # one state throughout, whatever a server writes
            return _problems(connection, path)[:MAX_PROBLEMS]
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY or not _is_readable(path):
            raise StackError(
                f"{path} cannot be looked at: {error}", hint="check who may read it"
            ) from error
        return [str(error)]


def _is_readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def _problems(connection: sqlite3.Connection, path: Path) -> list[str]:
    version, newest = version_of(connection), migrations()[-1].number
    found = shape_of(connection)
    if found.objects and ("table", "meta") not in found.objects:
        raise UsageError(
            f"{path} is a database of another program", hint="choose the right --data-dir"
        )
    if version > newest:
        raise UsageError(
            f"{path} was written by a newer sdq (form {version}, this one knows {newest})",
            hint="install that version of sdq again, or choose another data directory",
        )
    if version <= 0:
        return ["it is empty"]
    checked = connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})").fetchall()
    lines = [line for row in checked for line in str(row[0]).splitlines()]
    if problems := [line for line in lines if _is_damage(line)]:
        return problems
    return _missing_parts(found, version) or _unreadable_rows(connection)


def _is_damage(line: str) -> bool:
    """The full-text index is left to `totals`: it can be made anew by itself, and newer versions
    of SQLite cannot look at one that they may only read."""
    return line != "ok" and not line.startswith("***") and "FTS5" not in line


def _missing_parts(found: Shape, version: int) -> list[str]:
    with closing(fresh(":memory:", version)) as example:
        expected = shape_of(example)
    missing = sorted(expected.objects - found.objects)
    if missing:
        return [f"the {kind} {name} is missing" for kind, name in missing]
    return [
        f"the table {table} has other columns"
        for table, columns in expected.columns.items()
        if found.columns[table] != columns
    ]


def _unreadable_rows(connection: sqlite3.Connection) -> list[str]:
    """Rows that SQLite takes for sound, and that the server cannot work with."""
    connection.text_factory = bytes
    problems = []
    for table in ("jobs", "pictures"):
        cursor = connection.execute(f"SELECT rowid, * FROM {table}")  # noqa: S608 - our own name
        names = [column[0] for column in cursor.description]
        for row in cursor:
            try:
                readable(table, names[1:], row[1:])
            except UnreadableRow as error:
                problems.append(f"row {row[0]} of the table {table}: {error}")
                if len(problems) >= MAX_PROBLEMS:
                    return problems
    return problems


def readable(table: str, names: Sequence[str], values: Sequence[object]) -> list[object]:
    """The values of a row with texts (bytes until now) decoded. Raises `UnreadableRow`."""
    try:
        decoded = [value.decode() if isinstance(value, bytes) else value for value in values]
        if table in ("jobs", "pictures"):
            _decode_spec(str(decoded[names.index("spec")]))
        if table == "jobs":
            JobState(str(decoded[names.index("state")]))
    except (ValueError, msgspec.MsgspecError) as error:
        raise UnreadableRow(str(error)) from error
    return decoded
