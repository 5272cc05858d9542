"""Running totals: found wrong, put right."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from sdq.server.database import DATABASE_NAME
from sdq.server.upkeep.totals import TOTALS, mend_totals, wrong_totals
from sdq.testing.shelf import Shelf

WORDS = "(rowid, words, negative_words, facts) VALUES (1, 'a', 'b', 'c')"


@pytest.fixture
async def connection(shelf: Shelf) -> AsyncIterator[sqlite3.Connection]:
    await shelf.stock(4, jobs=7)
    path = shelf.root / DATABASE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as found:
        yield found


def all_of(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [
        sorted(connection.execute(f"SELECT * FROM {total.table}").fetchall()) for total in TOTALS
    ]


def test_what_the_triggers_keep_is_right(connection: sqlite3.Connection):
    assert wrong_totals(connection) == []
    assert mend_totals(connection) == []


@pytest.mark.parametrize(
    ("damage", "table"),
    [
        ("UPDATE library_totals SET pictures = pictures + 1", "library_totals"),
        ("UPDATE library_totals SET bytes = 0", "library_totals"),
        ("DELETE FROM library_totals", "library_totals"),
        ("INSERT INTO library_totals SELECT * FROM library_totals", "library_totals"),
        (f"INSERT INTO pictures_text {WORDS}", "pictures_text"),
        ("INSERT INTO pictures_text (pictures_text) VALUES ('delete-all')", "pictures_text"),
        ("UPDATE job_counts SET jobs = jobs - 1", "job_counts"),
        ("DELETE FROM job_counts", "job_counts"),
        ("INSERT INTO job_counts VALUES ('other', 'queued', 3)", "job_counts"),
        ("UPDATE turns SET waiting = waiting + 1", "turns"),
        ("DELETE FROM turns", "turns"),
    ],
)
def test_a_wrong_one_is_found_and_put_right(
    connection: sqlite3.Connection, damage: str, table: str
):
    right = all_of(connection)
    connection.execute(damage)
    assert [total.table for total in wrong_totals(connection)] == [table]
    assert [total.table for total in mend_totals(connection)] == [table]
    assert wrong_totals(connection) == []
    found = [[row for row in rows if row[-1] != 0] for rows in all_of(connection)]
    assert found == [[row for row in rows if row[-1] != 0] for rows in right]


def test_a_search_that_finds_something_else_is_made_anew(connection: sqlite3.Connection):
    find = "SELECT count(*) FROM pictures_text WHERE pictures_text MATCH 'words : picture'"
    connection.execute("DROP TRIGGER pictures_text_changed")
    connection.execute("UPDATE pictures SET words = 'painting'")
    assert connection.execute(find).fetchone() == (4,)
    assert [total.table for total in mend_totals(connection)] == ["pictures_text"]
    assert connection.execute(find).fetchone() == (0,)
    assert mend_totals(connection) == []


def test_wants_follow_the_jobs_again(connection: sqlite3.Connection):
    right = all_of(connection)
    connection.execute("DROP TRIGGER wants_follow")
    connection.execute("UPDATE jobs SET state = 'succeeded' WHERE sequence = 1")
    connection.execute("INSERT INTO wants VALUES (999, 'nobody', 'shapes', 1, 1, 0)")
    assert {total.table for total in wrong_totals(connection)} == {"wants"}
    mend_totals(connection)
    assert wrong_totals(connection) == []
    stages = connection.execute("SELECT sequence, stage FROM wants ORDER BY 1").fetchall()
    assert stages == [(1, 2), *((number, 0) for number in range(2, 8))]
    assert all_of(connection)[0] == right[0]
