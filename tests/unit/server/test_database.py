"""The database: opened by one server, migrated, all or nothing."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import aiosqlite
import msgspec
import pytest

from sdq.errors import StackError, UsageError
from sdq.protocol.model import JobId
from sdq.server.database import Database, Migration, finish, migrate, migrations, storage_error


async def names(database: Database) -> set[str]:
    return {row["name"] for row in await database.fetch_all("SELECT name FROM meta")}


async def add(database: Database, name: str) -> None:
    async with database.transaction() as inside:
        await inside.execute("INSERT INTO meta VALUES (?, 'x')", (name,))


async def test_it_makes_its_folder_and_keeps_its_server_id(tmp_path: Path):
    path = tmp_path / "not" / "there" / "sdq.sqlite3"
    first = await Database.open(path)
    await first.close()
    second = await Database.open(path)
    await second.close()
    assert msgspec.convert(first.server_id, JobId) == second.server_id
    other = await Database.open(tmp_path / "other.sqlite3")
    await other.close()
    assert other.server_id != first.server_id


async def test_it_is_safe_against_kill_and_quick(database: Database):
    async def pragma(name: str) -> object:
        row = await database.fetch_one(f"PRAGMA {name}")
        assert row is not None
        return row[0]

    assert await pragma("journal_mode") == "wal"
    assert await pragma("synchronous") == 1
    assert await pragma("foreign_keys") == 1
    assert await pragma("busy_timeout") == 5_000


async def test_closing_twice_is_fine_and_using_it_afterwards_is_refused(tmp_path: Path):
    database = await Database.open(tmp_path / "db")
    await database.close()
    await database.close()
    with pytest.raises(StackError, match="closed"):
        await database.fetch_all("SELECT 1")
    with pytest.raises(StackError, match="closed"):
        async with database.transaction():
            pass


async def test_a_transaction_is_all_or_nothing(database: Database):
    async def fail() -> None:
        async with database.transaction() as inside:
            await inside.execute("INSERT INTO meta VALUES ('half', 'x')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(database) == {"server_id"}
    await add(database, "whole")
    assert await names(database) == {"server_id", "whole"}


async def test_a_defect_stays_what_it_is(database: Database):
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.fetch_all("SELECT * FROM no_table")
    with pytest.raises(sqlite3.IntegrityError):
        await add(database, "server_id")


async def test_a_cancelled_transaction_is_undone(database: Database):
    written = asyncio.Event()

    async def slow() -> None:
        async with database.transaction() as inside:
            await inside.execute("INSERT INTO meta VALUES ('half', 'x')")
            written.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(slow())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == {"server_id"}


async def test_a_cancel_at_any_moment_leaves_no_transaction_open(database: Database):
    for number in range(40):
        task = asyncio.create_task(add(database, f"n{number}"))
        for _ in range(number % 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        connection = database._connection
        assert connection is not None
        assert not connection.in_transaction
    await add(database, "last")
    assert "last" in await names(database)


async def test_a_cancel_during_the_commit_comes_after_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    commit = aiosqlite.Connection.commit
    committing = asyncio.Event()

    async def slow_commit(self: aiosqlite.Connection) -> None:
        committing.set()
        await asyncio.sleep(0.02)
        await commit(self)

    monkeypatch.setattr(aiosqlite.Connection, "commit", slow_commit)
    task = asyncio.create_task(add(database, "kept"))
    await committing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "kept" in await names(database)


async def test_others_see_nothing_before_the_commit(database: Database):
    async with database.transaction() as inside:
        await inside.execute("INSERT INTO meta VALUES ('new', 'x')")
        other = asyncio.create_task(names(database))
        await asyncio.sleep(0.02)
        assert not other.done()
        assert "new" in await names(database)  # its own task sees it, and does not wait for itself
    assert "new" in await other


async def test_transactions_take_turns_and_do_not_nest(database: Database):
    await asyncio.gather(*(add(database, f"n{number}") for number in range(50)))
    assert len(await names(database)) == 51
    async with database.transaction():
        with pytest.raises(RuntimeError, match="nest"):
            async with database.transaction():
                pass


async def test_closing_waits_for_the_transaction_under_way(tmp_path: Path):
    database = await Database.open(tmp_path / "db")
    async with database.transaction() as inside:
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
        await inside.execute("INSERT INTO meta VALUES ('in', 'x')")
    await closing
    database = await Database.open(tmp_path / "db")
    assert "in" in await names(database)
    await database.close()


async def test_two_servers_on_one_data_directory_refuse_politely(tmp_path: Path):
    database = await Database.open(tmp_path / "db")
    with pytest.raises(UsageError, match=f"process {os.getpid()}") as caught:
        await Database.open(tmp_path / "db")
    assert "--data-dir" in caught.value.hint
    await database.close()
    again = await Database.open(tmp_path / "db")
    await again.close()


HOLD = """
import asyncio, pathlib, sys
from sdq.server.database import Database
async def main():
    database = await Database.open(pathlib.Path(sys.argv[1]))
    for number in range(1000):
        async with database.transaction() as inside:
            await inside.execute("INSERT INTO meta VALUES (?, 'x')", (str(number),))
        print(number, flush=True)
asyncio.run(main())
"""


def start_holder(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_what_a_killed_server_committed_is_there_and_its_lock_is_gone(tmp_path: Path):
    path = tmp_path / "db"
    with start_holder(path) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "20":
            assert process.poll() is None
        with pytest.raises(UsageError, match=f"process {process.pid}"):
            await Database.open(path)
        process.send_signal(signal.SIGKILL)
        printed = process.stdout.read().split()
    last = int(printed[-1]) if printed else 20
    database = await Database.open(path)
    assert {str(number) for number in range(last + 1)} <= await names(database)
    await database.close()


async def test_a_database_of_a_newer_sdq_is_refused(tmp_path: Path):
    database = await Database.open(tmp_path / "db")
    async with database.transaction() as inside:
        await inside.execute("PRAGMA user_version = 900")
    await database.close()
    with pytest.raises(UsageError, match="newer sdq"):
        await Database.open(tmp_path / "db")


async def test_something_else_in_its_place_is_refused(tmp_path: Path):
    (tmp_path / "db").write_bytes(b"This is my shopping list. " * 100)
    with pytest.raises(UsageError, match="is no database"):
        await Database.open(tmp_path / "db")
    (tmp_path / "dir").mkdir()
    with pytest.raises(StackError, match="cannot be used"):
        await Database.open(tmp_path / "dir")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="data directory"):
        await Database.open(tmp_path / "file" / "db")


def test_migrations_are_numbered_without_gaps():
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


async def test_a_migration_that_fails_leaves_the_old_form(tmp_path: Path):
    good = Migration(1, "001_a.sql", "CREATE TABLE a (x);")
    bad = Migration(2, "002_b.sql", "CREATE TABLE b (x); INSERT INTO no_table VALUES (1);")
    mended = bad._replace(sql="CREATE TABLE b (x);")
    path = tmp_path / "db"
    async with aiosqlite.connect(path, isolation_level=None) as connection:

        async def state() -> tuple[list[str], int]:
            tables = await connection.execute_fetchall("SELECT name FROM sqlite_schema")
            version = list(await connection.execute_fetchall("PRAGMA user_version"))
            return [row[0] for row in tables], version[0][0]

        with pytest.raises(sqlite3.OperationalError, match="no_table"):
            await migrate(connection, [good, bad], path)
        assert await state() == (["a"], 1)
        await migrate(connection, [good, mended], path)
        assert await state() == (["a", "b"], 2)
        await migrate(connection, [good, mended], path)


async def test_a_full_disk_is_said_in_words_and_undone(database: Database):
    pages = await database.fetch_one("PRAGMA page_count")
    assert pages is not None
    await database.fetch_all(f"PRAGMA max_page_count = {pages[0]}")

    async def overfill() -> None:
        async with database.transaction() as inside:
            await inside.execute("INSERT INTO meta VALUES ('small', 'x')")
            await inside.execute("INSERT INTO meta VALUES ('big', ?)", ("x" * 100_000,))

    with pytest.raises(StackError, match="is full") as caught:
        await overfill()
    assert "make room" in caught.value.hint
    assert await names(database) == {"server_id"}
    await database.fetch_all("PRAGMA max_page_count = 100000")
    await add(database, "works again")


async def test_a_lock_held_by_another_program_is_not_a_traceback(
    database: Database, tmp_path: Path
):
    await database.fetch_all("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StackError, match="locked"):
        await add(database, "waits")
    other.execute("ROLLBACK")
    other.close()
    await add(database, "now")


def test_errors_of_ours_are_no_storage_errors(tmp_path: Path):
    assert storage_error(ValueError("x"), tmp_path) is None
    assert storage_error(sqlite3.OperationalError("no such column"), tmp_path) is None
    assert "full" in str(storage_error(OSError(28, "No space left on device"), tmp_path))
    assert "denied" in str(storage_error(PermissionError(13, "Permission denied"), tmp_path))


async def test_finish_goes_on_through_a_cancel():
    done: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.02)
        done.append("work")
        return "result"

    assert await finish(work()) == "result"
    task = asyncio.create_task(finish(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work", "work"]


async def test_finish_hands_on_the_error_and_prefers_the_cancel():
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish(fail())
    task = asyncio.create_task(finish(fail()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_while_opening_leaves_the_directory_free(tmp_path: Path):
    for pause in range(0, 60, 3):
        task = asyncio.create_task(Database.open(tmp_path / "db"))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            await task.result().close()
    database = await Database.open(tmp_path / "db")
    await database.close()


async def test_damage_while_it_is_open_is_said_with_what_to_do(database: Database):
    """Bytes overwritten in the middle of the file, under a server that works with it."""
    for number in range(300):
        await add(database, f"n{number:04d}" + "x" * 200)
    await database.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    await database.fetch_all("PRAGMA cache_size = 1")
    size_bytes = database.path.stat().st_size
    with database.path.open("r+b") as file:
        file.seek(size_bytes // 2 // 4_096 * 4_096)
        file.write(b"\x5a" * 20_000)
    with pytest.raises(StackError, match="is damaged") as caught:
        await database.fetch_all("SELECT name, value FROM meta NOT INDEXED")
    assert "sdq server check --repair" in caught.value.hint

    async def change() -> None:
        async with database.transaction() as inside:
            await inside.execute_fetchall("UPDATE meta SET value = 'y'")

    with pytest.raises(StackError, match="is damaged"):
        await change()
    # What lies elsewhere is read and written all the same.
    assert await database.fetch_one("SELECT value FROM meta WHERE name = 'server_id'") is not None
    await database.close()


async def test_a_file_that_is_damaged_at_the_start_is_said_with_what_to_do(tmp_path: Path):
    database = await Database.open(tmp_path / "db")
    await database.close()
    with (tmp_path / "db").open("r+b") as file:
        file.write(b"\x5a" * 2_000)
    with pytest.raises(UsageError, match="damaged") as caught:
        await Database.open(tmp_path / "db")
    assert "sdq server check --repair" in caught.value.hint
