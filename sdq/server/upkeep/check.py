"""Looks through a server's data for what is damaged, and mends it.

Looking changes nothing and is allowed while a server runs. Mending holds the server's lock.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from sdq.errors import UsageError
from sdq.server.database import DATABASE_NAME, held, reraise
from sdq.server.library.files import FOLDERS, LIBRARY_NAME
from sdq.server.upkeep.damage import problems_in, reading, upgrade
from sdq.server.upkeep.repair import Flaw, PictureCheck, PictureRepair
from sdq.server.upkeep.salvage import rebuild
from sdq.server.upkeep.totals import mend_totals, wrong_totals

ASIDE_NAME = "aside"
"""The folder in the data directory for files that are of no use."""

LOOK_AGAIN_SECONDS = (0.05, 0.1, 0.2)
"""A running server may be just writing what looks wrong: a little later it no longer does."""

Told = Callable[[int, int], None]


class Finding(NamedTuple):
    """One thing that is wrong, or was."""

    kind: str  # database, totals, row, file, temporary, place
    subject: str  # a path
    text: str  # what is wrong with it
    mended: str  # what was done about it; empty: nothing


def check(data_dir: Path, *, repair: bool, told: Told) -> Iterator[Finding]:
    """Everything that is wrong in a server's data directory, one after the other.

    With ``repair`` each is mended before it is given, as far as that is possible, and the
    server's lock is held meanwhile. ``told`` hears after each folder of pictures how many are
    done, and of how many. Raises `UsageError` when there are no data, when they are in use and
    shall be mended, or belong to another program; `StackError` when the disk does not play along.
    """
    path = data_dir / DATABASE_NAME
    if not path.exists() and not (data_dir / LIBRARY_NAME).exists():
        raise UsageError(
            f"there are no data of a server in {data_dir}", hint="choose another with --data-dir"
        )
    with held(path) if repair else nullcontext():
        try:
            if repair:
                yield from _mend(data_dir, told)
            else:
                yield from _look(data_dir, told)
        except (OSError, sqlite3.Error) as error:
            reraise(error, path)


def _look(data_dir: Path, told: Told) -> Iterator[Finding]:
    path = data_dir / DATABASE_NAME
    problems = problems_in(path)
    yield from (Finding("database", str(path), problem, "") for problem in problems)
    with reading(path) if not problems else nullcontext() as connection:
        if connection is not None:
            yield from _wrong_totals(connection, path)
        pictures = PictureCheck(data_dir / LIBRARY_NAME, connection)
        for number, folder in enumerate(FOLDERS, 1):
            flaws = list(pictures.flaws(folder))
            for flaw in _lasting(data_dir, folder, flaws, is_known=connection is not None):
                yield Finding(flaw.kind, str(flaw.path), flaw.text, "")
            told(number, len(FOLDERS))


def _wrong_totals(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    connection.execute("BEGIN")  # one state throughout, whatever a server writes
    wrong = wrong_totals(connection)
    connection.execute("COMMIT")
    for total in wrong:
        yield Finding("totals", str(path), f"wrong: {total.about}", "")


def _lasting(data_dir: Path, folder: str, flaws: list[Flaw], *, is_known: bool) -> list[Flaw]:
    """Those that are still there at each later look."""
    for pause_seconds in LOOK_AGAIN_SECONDS if flaws else ():
        time.sleep(pause_seconds)
        with reading(data_dir / DATABASE_NAME) if is_known else nullcontext() as connection:
            still = set(PictureCheck(data_dir / LIBRARY_NAME, connection).flaws(folder))
        flaws = [flaw for flaw in flaws if flaw in still]
    return flaws


def _mend(data_dir: Path, told: Told) -> Iterator[Finding]:
    path = data_dir / DATABASE_NAME
    if problems := problems_in(path):
        done = str(rebuild(path))
        for problem in problems:
            yield Finding("database", str(path), problem, done)
            done = "made anew"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        upgrade(connection)
        for total in mend_totals(connection):
            yield Finding("totals", str(path), f"wrong: {total.about}", "counted anew")
        pictures = PictureCheck(data_dir / LIBRARY_NAME, connection)
        mender = PictureRepair(data_dir / LIBRARY_NAME, data_dir / ASIDE_NAME, connection)
        for number, folder in enumerate(FOLDERS, 1):
            with _transaction(connection):
                findings = [_mended(mender, flaw) for flaw in pictures.flaws(folder)]
            yield from findings
            told(number, len(FOLDERS))


def _mended(mender: PictureRepair, flaw: Flaw) -> Finding:
    try:
        return Finding(flaw.kind, str(flaw.path), flaw.text, mender.mend(flaw))
    except OSError as error:
        text = f"{flaw.text}; cannot be mended: {error.strerror}"
        return Finding(flaw.kind, str(flaw.path), text, "")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # Ctrl-C too; raised again
        connection.execute("ROLLBACK")
        raise
