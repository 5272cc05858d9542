"""Looking and mending as a whole: what is reported, what is held, what is left alone."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sdq.errors import StackError, UsageError
from sdq.server.database import DATABASE_NAME, Database
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Turns
from sdq.server.upkeep.check import Finding, check
from sdq.testing.shelf import Shelf


def look(root: Path, *, repair: bool = False) -> list[Finding]:
    steps: list[tuple[int, int]] = []
    found = list(check(root, repair=repair, told=lambda done, total: steps.append((done, total))))
    assert steps == [(number, 256) for number in range(1, 257)]
    return found


def everything(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def tear(shelf: Shelf, keys: list[str]) -> None:
    """A bit of everything."""
    shelf.path(keys[0]).unlink()
    shelf.path(keys[1]).write_bytes(b"damaged")
    shelf.path(keys[2]).with_name(f"{keys[2]}.png.tmp").write_bytes(b"half")
    with closing(sqlite3.connect(shelf.root / DATABASE_NAME)) as connection:
        connection.execute("DELETE FROM pictures WHERE key = ?", (keys[3],))
        connection.execute("UPDATE job_counts SET jobs = 77")
        connection.commit()


async def test_all_is_well(shelf: Shelf):
    await shelf.stock(4, jobs=3)
    before = everything(shelf.root)
    assert look(shelf.root) == look(shelf.root, repair=True) == []
    after = everything(shelf.root)
    after.pop(shelf.root / f"{DATABASE_NAME}.lock")
    before.pop(shelf.root / f"{DATABASE_NAME}.lock")
    assert after == before


async def test_looking_changes_nothing_and_mending_leaves_nothing(shelf: Shelf):
    keys = await shelf.stock(6, jobs=3)
    tear(shelf, keys)
    before = everything(shelf.root)
    found = look(shelf.root)
    assert sorted(finding.kind for finding in found) == [
        *("file", "row", "row", "temporary", "totals")
    ]
    assert not any(finding.mended for finding in found)
    assert everything(shelf.root) == before
    mended = look(shelf.root, repair=True)
    assert sorted(finding[:3] for finding in mended) == sorted(finding[:3] for finding in found)
    assert all(finding.mended for finding in mended)
    assert look(shelf.root) == []


async def test_a_damaged_database_comes_back_with_its_pictures(shelf: Shelf):
    keys = await shelf.stock(5, jobs=3)
    path = shelf.root / DATABASE_NAME
    with path.open("r+b") as file:
        file.write(bytes(200))
    assert [finding.kind for finding in look(shelf.root)] == ["database"]
    found = look(shelf.root, repair=True)
    assert [finding.kind for finding in found] == ["database", *["file"] * 5]
    assert all(finding.mended for finding in found)
    assert look(shelf.root) == []
    async with shelf.open() as library:
        for key in keys:
            assert await library.get(key) is not None
    assert len(list(shelf.root.glob(f"{DATABASE_NAME}.damaged-*"))) == 1


async def test_pictures_alone_are_enough(shelf: Shelf):
    keys = await shelf.stock(3)
    for file in shelf.root.glob(f"{DATABASE_NAME}*"):
        file.unlink()
    found = look(shelf.root, repair=True)
    assert found[0].text == "it is missing"
    assert look(shelf.root) == []
    async with shelf.open() as library:
        assert await library.get(keys[0]) is not None


async def test_beside_a_running_server_it_looks_and_does_not_mend(shelf: Shelf):
    keys = await shelf.stock(4)
    async with shelf.open() as library:
        stored = await library.get(keys[0])
        assert stored is not None
        with pytest.raises(UsageError, match="uses the data directory"):
            look(shelf.root, repair=True)
        stop = asyncio.Event()

        async def work() -> None:
            while not stop.is_set():
                await library.put(keys[0], stored.spec, stored.image, 1.0)
                await library.remove([keys[0]])
                await asyncio.sleep(0.01)

        working = asyncio.create_task(work())
        found = [await asyncio.to_thread(look, shelf.root) for _ in range(3)]
        stop.set()
        await working
        assert found == [[], [], []]


async def test_while_it_mends_no_server_starts(shelf: Shelf):
    await shelf.stock(1)
    mending = check(shelf.root, repair=True, told=lambda _done, _total: None)
    shelf.path("ab" * 32).parent.mkdir(exist_ok=True)
    shelf.path("ab" * 32).write_bytes(b"no picture")
    assert next(mending).kind == "file"
    with pytest.raises(UsageError, match="uses the data directory"):
        await Database.open(shelf.root / DATABASE_NAME)
    mending.close()
    database = await Database.open(shelf.root / DATABASE_NAME)
    await database.close()


async def test_where_there_are_no_data_it_says_so(tmp_path: Path):
    with pytest.raises(UsageError, match="no data of a server"):
        look(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_mended_is_left_and_said(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    await shelf.stock(1)
    shelf.path("ab" * 32).parent.mkdir(exist_ok=True)
    shelf.path("ab" * 32).write_bytes(b"no picture")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    (found,) = look(shelf.root, repair=True)
    assert found.mended == ""
    assert "cannot be mended: Permission denied" in found.text


async def test_a_full_disk_while_mending_is_said_in_words(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    await shelf.stock(1)
    (shelf.root / DATABASE_NAME).write_bytes(b"")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StackError, match="is full"):
        look(shelf.root, repair=True)
    assert (shelf.root / DATABASE_NAME).read_bytes() == b""


async def test_a_damaged_job_is_an_error_in_words_until_it_is_taken_out(shelf: Shelf):
    await shelf.stock(1, jobs=3)
    path = shelf.root / DATABASE_NAME
    with closing(sqlite3.connect(path)) as connection:
        nonsense = "UPDATE jobs SET spec = 'nonsense' WHERE sequence = 2 RETURNING job_id"
        (job_id,) = connection.execute(nonsense).fetchone()
        connection.commit()
    database = await Database.open(path)
    with pytest.raises(StackError, match="row of job") as caught:
        await JobTable(database).get(job_id)
    assert "check --repair" in caught.value.hint
    await database.close()
    (found,) = look(shelf.root, repair=True)
    assert "2 of 3 rows of jobs" in found.mended
    database = await Database.open(path)
    assert len(await Turns(database).dispatch_next("shapes", 10)) == 2
    await database.close()
