"""A damaged database made anew from what can be read of it.

SQLite stops at the first damaged page. So each table is read from both ends towards the damage,
and what lies between is cut in halves until only the rows remain that cannot be read.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from sdq.server.database import migrations
from sdq.server.upkeep.damage import (
    UnreadableRow,
    fresh,
    readable,
    reading,
    shape_of,
    upgrade,
    version_of,
)
from sdq.server.upkeep.totals import mend_totals

MAX_FAILED_READS = 20_000
"""Of one table: some hundred damaged pages."""

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_DERIVED = ("library_totals", "job_counts", "pictures_text")  # made anew from the others
_LOGS = ("-wal", "-journal")

_COUNTS = {
    "jobs": "SELECT sum(jobs) FROM job_counts",
    "pictures": "SELECT pictures FROM library_totals",
}
_WANT_AGAIN = """
INSERT OR IGNORE INTO wants SELECT sequence, identity, model_id, 1, 1,
    CASE WHEN state = 'queued' THEN 0 ELSE 1 END
FROM jobs WHERE state IN ('queued', 'dispatched', 'running')
    AND sequence NOT IN (SELECT sequence FROM wants)
"""


class Saved(NamedTuple):
    rows: Counter[str]  # by table
    before: dict[str, int]  # by table, as far as that could be read
    aside: Path | None  # where the damaged file is now

    def _of(self, table: str) -> str:
        saved, before = self.rows[table], self.before.get(table)
        text = f"{saved} rows" if before is None else f"{saved} of {before} rows"
        return f"{text} of {table}"

    def __str__(self) -> str:
        text = f"made anew with {self._of('jobs')} and {self._of('pictures')}"
        return text if self.aside is None else f"{text}; the damaged file is now {self.aside}"


def rebuild(path: Path) -> Saved:
    """Puts a new database in the place of ``path``, with all that can be read of the old one.

    The old one stays beside it under another name, with the date in it. The caller holds the
    lock. Raises `OSError` or `sqlite3.Error` when the new one cannot be written; the old one is
    in its place then.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    try:
        rows, before = _save(path, new)
        _flush(new)
        aside = _set_aside(path)
        new.replace(path)
    except BaseException:  # Ctrl-C too leaves no half file; raised again
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    return Saved(rows, before, aside)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_aside(path: Path) -> Path | None:
    """Gives the old file and its log a second name, so that at no moment there is none at all.

    The log goes before the new file comes: SQLite would take it for the new one's.
    """
    aside = _free_name(path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    if path.is_dir():
        return path.rename(aside)
    there = path.exists()
    for suffix in ("", *_LOGS):
        with contextlib.suppress(FileNotFoundError):
            _name_also(Path(f"{path}{suffix}"), Path(f"{aside}{suffix}"))
    for suffix in (*_LOGS, "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return aside if there else None


def _free_name(wanted: Path) -> Path:
    name, number = wanted, 1
    while name.exists():
        name, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return name


def _name_also(path: Path, other: Path) -> None:
    try:
        other.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:  # a file system where files have one name only
        shutil.copy2(path, other)


def _save(path: Path, new: Path) -> tuple[Counter[str], dict[str, int]]:
    rows: Counter[str] = Counter()
    before: dict[str, int] = {}
    if not path.is_file():
        fresh(new, migrations()[-1].number).close()
        return rows, before
    with closing(fresh(new, _version(path))) as target:
        triggers = _without_triggers(target)
        target.execute("BEGIN")
        with _reading(path) as source:
            if source is not None:
                before = _counts(source)
            for table, columns in shape_of(target).columns.items():
                if not table.startswith(_DERIVED) and source is not None:
                    rows[table] = _copy(source, target, table, columns)
        if ("table", "wants") in shape_of(target).objects:
            target.execute(_WANT_AGAIN)
        for sql in triggers:
            target.execute(sql)
        target.execute("COMMIT")
        mend_totals(target)
        upgrade(target)
    return rows, before


def _counts(source: sqlite3.Connection) -> dict[str, int]:
    """What the running totals say."""
    counts = {}
    for table, sql in _COUNTS.items():
        with contextlib.suppress(sqlite3.DatabaseError, TypeError):
            counts[table] = int(source.execute(sql).fetchone()[0])
    return counts


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """The damaged file, or ``None`` when it cannot even be opened."""
    with contextlib.ExitStack() as opened:
        source = None
        with contextlib.suppress(sqlite3.DatabaseError):
            source = opened.enter_context(reading(path))
            source.text_factory = bytes
        yield source


def _version(path: Path) -> int:
    """The number of the old one's form, as far as that can be read."""
    newest = migrations()[-1].number
    try:
        with reading(path) as source:
            version = version_of(source)
    except sqlite3.Error:
        return newest
    return version if 0 < version <= newest else newest


def _without_triggers(target: sqlite3.Connection) -> list[str]:
    """Drops the triggers, whose work is in the rows already; what makes them again."""
    found = target.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in found:
        target.execute(f"DROP TRIGGER {name}")
    return [sql for _, sql in found]


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, columns: Sequence[str]
) -> int:
    """Copies the rows of a table that can be read and make sense; how many."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
    rows = _by_number if _has_rowid(target, table) else _from_both_ends
    copied = 0
    for row in rows(source, table, names) if _is_there(source, table, names) else ():
        # Of two rows for one key at most one can be right: the first is as good.
        with contextlib.suppress(UnreadableRow, sqlite3.IntegrityError):
            copied += target.execute(sql, readable(table, columns, row)).rowcount
    return copied


def _has_rowid(target: sqlite3.Connection, table: str) -> bool:
    return _is_there(target, table, "rowid")


def _is_there(connection: sqlite3.Connection, table: str, names: str) -> bool:
    try:
        connection.execute(f"SELECT {names} FROM {table} LIMIT 0")  # noqa: S608
    except sqlite3.DatabaseError:
        return False
    return True


def _by_number(source: sqlite3.Connection, table: str, names: str) -> Iterator[Sequence[object]]:
    upward = (
        f"SELECT rowid, {names} FROM {table} NOT INDEXED"  # noqa: S608
        " WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
    )
    gaps, failures = deque([(_LOWEST, _HIGHEST)]), 0
    while gaps and failures < MAX_FAILED_READS:
        low, high = gaps.popleft()
        try:
            for row in source.execute(upward, (low, high)):
                yield row[1:]
                low = max(low, row[0]) + 1
            continue
        except sqlite3.DatabaseError:
            failures += 1
        try:
            for row in source.execute(f"{upward} DESC", (low, high)):
                yield row[1:]
                high = min(high, row[0]) - 1
        except sqlite3.DatabaseError:
            failures += 1
        if low < high:
            middle = (low + high) // 2
            gaps += [(low, middle), (middle + 1, high)]


def _from_both_ends(
    source: sqlite3.Connection, table: str, names: str
) -> Iterator[Sequence[object]]:
    """A table that is its own index: rows may come twice."""
    for order in ("1, 2", "1 DESC, 2 DESC"):  # the key comes first in each of ours
        try:
            yield from source.execute(f"SELECT {names} FROM {table} ORDER BY {order}")  # noqa: S608
        except sqlite3.DatabaseError:
            continue
        return
