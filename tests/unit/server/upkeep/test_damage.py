"""Damaged databases, each in its own way: told from sound ones, and in words."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sdq.errors import UsageError
from sdq.server.database import DATABASE_NAME, Database
from sdq.server.upkeep.damage import is_at_rest, problems_in, reading
from sdq.testing.shelf import Shelf


@pytest.fixture
async def path(shelf: Shelf) -> Path:
    await shelf.stock(5, jobs=30)
    return shelf.root / DATABASE_NAME


def overwrite(path: Path, start: float, length: int, fill: bytes = b"\x5a") -> None:
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * start))
        file.write(fill * length)


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def no_text(path: Path) -> None:
    """Bytes inside a row that SQLite does not look at."""
    data = path.read_bytes()
    assert b"job 7" in data
    path.write_bytes(data.replace(b"job 7", b"job \xff"))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "middle": (lambda path: overwrite(path, 0.5, 9_000), "age"),
    "head": (lambda path: overwrite(path, 0, 100), "not a database"),
    "cut": (cut, "malformed|age"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "gone": (lambda path: path.unlink(), "it is missing"),
    "folder": (lambda path: (path.unlink(), path.mkdir())[0], "it is no file"),
    "text": (lambda path: path.write_bytes(b"a shopping list" * 400), "not a database"),
    "no index": (lambda path: sql(path, "DROP INDEX jobs_by_state"), "index jobs_by_state"),
    "no trigger": (lambda path: sql(path, "DROP TRIGGER jobs_moved"), "trigger jobs_moved"),
    "no table": (lambda path: sql(path, "DROP TABLE pictures"), "table pictures is missing"),
    "column": (lambda path: sql(path, "ALTER TABLE jobs ADD COLUMN x TEXT"), "other columns"),
    "no text": (no_text, "row 8 of the table jobs"),
    "state": (
        lambda path: sql(path, "UPDATE jobs SET state = 'lost' WHERE sequence = 3"),
        "row 3 of the table jobs: 'lost'",
    ),
    "spec": (lambda path: sql(path, "UPDATE pictures SET spec = '{}'"), "of the table pictures"),
}


async def test_a_sound_one_has_no_problems_and_stays_as_it_is(path: Path):
    before, files = path.read_bytes(), set(path.parent.iterdir())
    assert problems_in(path) == []
    assert (path.read_bytes(), set(path.parent.iterdir())) == (before, files)


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found(path: Path, name: str):
    damage, expected = DAMAGES[name]
    damage(path)
    problems = problems_in(path)
    assert problems
    assert len(problems) <= 20
    assert [line for line in problems if any(word in line for word in expected.split("|"))]


async def test_a_database_in_use_is_looked_at_with_what_was_written_last(path: Path):
    assert is_at_rest(path)
    database = await Database.open(path)
    async with database.transaction() as inside:
        await inside.execute("INSERT INTO meta VALUES ('new', 'x')")
    assert not is_at_rest(path)
    assert problems_in(path) == []
    with reading(path) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'new'").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM meta")
    await database.close()


async def test_somebody_elses_database_is_left_alone(tmp_path: Path):
    sql(tmp_path / "theirs", "CREATE TABLE songs (title)")
    with pytest.raises(UsageError, match="another program"):
        problems_in(tmp_path / "theirs")


async def test_a_newer_one_is_left_alone(path: Path):
    sql(path, "PRAGMA user_version = 900")
    with pytest.raises(UsageError, match="newer sdq"):
        problems_in(path)
