"""Backups: consistent while the server works, whole or not at all, and good to start from."""

import asyncio
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from sdq.errors import OutputError, StackError, UsageError
from sdq.server.database import DATABASE_NAME
from sdq.server.upkeep.backup import backup
from sdq.server.upkeep.check import check
from sdq.testing.shelf import Shelf


def quiet(_done: int, _total: int) -> None:
    pass


def unpacked(file: Path, into: Path) -> Shelf:
    into.mkdir()
    with tarfile.open(file) as archive:
        archive.extractall(into, filter="data")
    return Shelf(into)


@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz", "all.tgz"])
async def test_an_archive_unpacked_is_a_data_directory(shelf: Shelf, tmp_path: Path, name: str):
    keys = await shelf.stock(5, jobs=3)
    (shelf.root / "catalog.toml").write_text("# chosen models")
    shelf.path(keys[4]).write_bytes(b"damaged")
    told: list[tuple[int, int]] = []
    file = tmp_path / "backups"
    file.mkdir()
    file = file / name
    done = backup(
        shelf.root, file, force=False, told=lambda done, total: told.append((done, total))
    )
    assert (done.pictures, done.left_out) == (4, 1)
    assert done.size_bytes == file.stat().st_size
    assert told == [(number, 5) for number in range(1, 6)]
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    restored = unpacked(file, tmp_path / "restored")
    assert (restored.root / "catalog.toml").read_text() == "# chosen models"
    assert list(check(restored.root, repair=False, told=quiet)) == []
    async with restored.open(memory_bytes=0) as library:
        assert [await library.get(key) is not None for key in keys] == [*[True] * 4, False]
        assert (await library.stats()).pictures == 4


async def test_the_database_alone(shelf: Shelf, tmp_path: Path):
    await shelf.stock(2, jobs=3)
    for name in ("a.sqlite3", "b.db"):
        done = backup(shelf.root, tmp_path / name, force=False, told=quiet)
        assert (done.pictures, done.left_out) == (2, 0)
        with closing(sqlite3.connect(tmp_path / name)) as copy:
            assert copy.execute("SELECT count(*) FROM jobs").fetchone() == (3,)
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_copy_made_while_the_server_works_is_whole(shelf: Shelf, tmp_path: Path):
    keys = await shelf.stock(30)
    async with shelf.open() as library:
        stored = [await library.get(key) for key in keys]
        stop = asyncio.Event()

        async def work() -> None:
            while not stop.is_set():
                await library.remove(keys[:5])
                for picture in stored[:5]:
                    assert picture is not None
                    await library.put(picture.key, picture.spec, picture.image, 1.0)

        working = asyncio.create_task(work())
        for number in range(5):
            file = tmp_path / f"{number}.tar"
            await asyncio.to_thread(backup, shelf.root, file, force=False, told=quiet)
        stop.set()
        await working
    for number in range(5):
        restored = unpacked(tmp_path / f"{number}.tar", tmp_path / f"restored-{number}")
        assert list(check(restored.root, repair=False, told=quiet)) == []
        async with restored.open() as library:
            assert (await library.stats()).pictures >= 25


async def test_what_exists_is_not_overwritten_unasked(shelf: Shelf, tmp_path: Path):
    await shelf.stock(1)
    file = tmp_path / "b.tar"
    file.write_text("precious")
    with pytest.raises(OutputError, match="exists") as caught:
        backup(shelf.root, file, force=False, told=quiet)
    assert "--force" in caught.value.hint
    assert file.read_text() == "precious"
    backup(shelf.root, file, force=True, told=quiet)
    assert tarfile.is_tarfile(file)


async def test_wrong_names_and_places_are_said_in_words(shelf: Shelf, tmp_path: Path):
    await shelf.stock(1)
    with pytest.raises(UsageError, match="no ending"):
        backup(shelf.root, tmp_path / "backup.zip", force=False, told=quiet)
    with pytest.raises(OutputError, match="cannot write"):
        backup(shelf.root, tmp_path / "not" / "there.tar", force=False, told=quiet)
    with pytest.raises(UsageError, match="no data of a server"):
        backup(tmp_path / "empty", tmp_path / "b.tar", force=False, told=quiet)


async def test_a_damaged_database_is_not_passed_on(shelf: Shelf, tmp_path: Path):
    await shelf.stock(1, jobs=60)
    path = shelf.root / DATABASE_NAME
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"x" * 30_000)
    with pytest.raises(StackError, match="damaged") as caught:
        backup(shelf.root, tmp_path / "b.tar", force=False, told=quiet)
    assert "check --repair" in caught.value.hint
    assert not (tmp_path / "b.tar").exists()


LIMITED = """
import pathlib, resource, sys
from sdq.errors import SdqError
from sdq.server.upkeep.backup import backup
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    backup(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), force=True, told=lambda *_: None)
except SdqError as error:
    print(f"{error.message}|{error.hint}")
"""


@pytest.mark.parametrize("limit_bytes", [20_000, 160_000])
async def test_no_room_leaves_nothing_and_what_was_there(
    shelf: Shelf, tmp_path: Path, limit_bytes: int
):
    """The kernel refuses in the middle: of the database's copy, and of the archive."""
    await shelf.stock(60)
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "b.tar"
    file.write_text("the one of yesterday")
    command = [sys.executable, "-c", LIMITED, str(shelf.root), str(file), str(limit_bytes)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    assert f"cannot write {file}" in done.stdout
    assert "make room" in done.stdout
    assert list(folder.iterdir()) == [file]
    assert file.read_text() == "the one of yesterday"
