"""The running totals that triggers keep: what they should say, and putting them right.

Also who wants which job: those rows follow the jobs' states.
"""

import sqlite3
from typing import NamedTuple

from sdq.server.database import is_damage

_STAGE = """
CASE WHEN jobs.state = 'queued' THEN 0 WHEN jobs.state IN ('dispatched', 'running') THEN 1 ELSE 2
END"""


_SEARCH = "pictures_text"


class Total(NamedTuple):
    """Two queries that must give the same rows, and what makes them."""

    table: str
    about: str
    actual: str
    expected: str
    mend: tuple[str, ...]


TOTALS = (
    Total(
        "library_totals",
        "the number of pictures and their bytes",
        "SELECT pictures, bytes FROM library_totals",
        "SELECT count(*), coalesce(sum(size_bytes), 0) FROM pictures",
        (
            "DELETE FROM library_totals",
            "INSERT INTO library_totals"
            " SELECT count(*), coalesce(sum(size_bytes), 0) FROM pictures",
        ),
    ),
    Total(
        _SEARCH,
        "which pictures can be found by their words",
        "SELECT id FROM pictures_text_docsize",
        "SELECT number FROM pictures",
        ("INSERT INTO pictures_text (pictures_text) VALUES ('rebuild')",),
    ),
    Total(
        "job_counts",
        "the numbers of jobs in each state",
        "SELECT model_id, state, jobs FROM job_counts WHERE jobs <> 0",
        "SELECT model_id, state, count(*) FROM jobs GROUP BY model_id, state",
        (
            "DELETE FROM job_counts",
            "INSERT INTO job_counts"
            " SELECT model_id, state, count(*) FROM jobs GROUP BY model_id, state",
        ),
    ),
    Total(
        "wants",
        "who wants which job",
        "SELECT sequence, identity, model_id, stage FROM wants",
        f"SELECT sequence, wants.identity, jobs.model_id, {_STAGE}"  # noqa: S608 - our own text
        " FROM wants JOIN jobs USING (sequence)",
        (
            "DELETE FROM wants WHERE sequence NOT IN (SELECT sequence FROM jobs)",
            f"UPDATE wants SET (model_id, stage) = (SELECT jobs.model_id, {_STAGE}"  # noqa: S608
            " FROM jobs WHERE jobs.sequence = wants.sequence)",
        ),
    ),
    Total(
        "turns",
        "the numbers of jobs that each person waits for",
        "SELECT model_id, identity, waiting FROM turns WHERE waiting <> 0",
        "SELECT model_id, identity, count(*) FROM wants WHERE stage = 0"
        " GROUP BY model_id, identity",
        (
            "UPDATE turns SET waiting = 0",
            "INSERT INTO turns (model_id, identity, served, waiting)"
            " SELECT model_id, identity, 0, count(*) FROM wants WHERE stage = 0"
            " GROUP BY model_id, identity"
            " ON CONFLICT DO UPDATE SET waiting = excluded.waiting",
        ),
    ),
)
"""In an order in which each builds on those before."""


def wrong_totals(connection: sqlite3.Connection) -> list[Total]:
    """Those that do not say what they should; a database of an older form has fewer."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    return [total for total in TOTALS if total.table in tables and _differs(connection, total)]


def _differs(connection: sqlite3.Connection, total: Total) -> bool:
    counts = [
        connection.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: S608 - ours
        for query in (total.actual, total.expected)
    ]
    both = f"{total.actual} EXCEPT {total.expected}"
    return counts[0] != counts[1] or connection.execute(both).fetchone() is not None


def _is_torn(connection: sqlite3.Connection) -> bool:
    """Whether the full-text index says something else than the rows. Only for who may write: for
    SQLite it is an insertion."""
    try:
        connection.execute(f"INSERT INTO {_SEARCH} ({_SEARCH}, rank) VALUES ('integrity-check', 1)")  # noqa: S608
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return True
        raise
    return False


def mend_totals(connection: sqlite3.Connection) -> list[Total]:
    """Puts right what is wrong, all in one transaction; gives what was."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        mended = wrong_totals(connection)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        if _SEARCH in tables and _SEARCH not in {total.table for total in mended}:
            mended += [total for total in TOTALS if total.table == _SEARCH and _is_torn(connection)]
        for total in TOTALS if mended else ():
            if total.table in tables:
                for sql in total.mend:
                    connection.execute(sql)
        connection.execute("COMMIT")
    except BaseException:  # Ctrl-C too; raised again
        connection.execute("ROLLBACK")
        raise
    return mended
