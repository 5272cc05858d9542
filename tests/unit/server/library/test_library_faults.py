"""The library when something dies: killed at every step, full disks, cancels."""

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiosqlite
import pytest

from sdq.errors import StackError
from sdq.server.database import Database
from sdq.server.library.library import Library, LibraryStats, Question
from sdq.spec import ImageSpec
from sdq.testing.shelf import Shelf


def key_for(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


KEY = key_for(0)

KILLED = """
import asyncio, os, pathlib, signal, sys
import aiosqlite
from sdq.server.database import Database
from sdq.server.library.files import PictureFiles
from sdq.server.library.library import Library
from sdq.spec import ImageSpec

root, key, moment = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
spec = ImageSpec("a red circle", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = await Database.open(root / "sdq.sqlite3")
    library = await Library.open(
        database, root / "library", retention_days=30, max_bytes=10**9, memory_bytes=10**6
    )
    if moment == "before-flush":
        os.fsync = die
    elif moment == "before-rename":
        pathlib.Path.replace = die
    elif moment == "before-commit":
        aiosqlite.Connection.commit = die
    elif moment == "removing":
        PictureFiles.remove = die
        await library.remove([key])
    await library.put(key, spec, b"a new picture", 1.0)
    die()

asyncio.run(main())
"""


MOMENTS = ["before-flush", "before-rename", "before-commit"]


def kill_at(shelf: Shelf, key: str, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(shelf.root), key, moment]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_in_the_middle_of_put_there_is_no_picture(shelf: Shelf, moment: str):
    kill_at(shelf, KEY, moment)
    assert len([path for path in shelf.files() if KEY in path.name]) == 1
    async with shelf.open() as library:
        assert shelf.files() == set()
        assert await library.get(KEY) is None
        assert await library.stats() == LibraryStats(0, 0)


async def test_killed_right_after_put_the_picture_is_there(shelf: Shelf):
    kill_at(shelf, KEY, "after")
    async with shelf.open() as library:
        stored = await library.get(KEY)
        assert stored is not None
        assert stored.image == b"a new picture"


@pytest.mark.parametrize(
    ("moment", "left"),
    [("before-flush", b"old"), ("before-rename", b"old"), ("before-commit", None)],
)
async def test_killed_while_replacing_it_is_never_a_mixture(
    shelf: Shelf, spec: ImageSpec, moment: str, left: bytes | None
):
    async with shelf.open() as library:
        await library.put(KEY, spec, b"old", 1.0)
    kill_at(shelf, KEY, moment)
    async with shelf.open() as library:
        stored = await library.get(KEY)
        assert (stored and stored.image) == left
        assert len(shelf.files()) == (await library.stats()).pictures == (1 if left else 0)


@pytest.mark.parametrize("trouble", [None, ZeroDivisionError, StackError("the row is gone")])
async def test_what_is_not_settled_leaves_everything_as_it_was(
    shelf: Shelf, spec: ImageSpec, trouble: Exception | type[Exception] | None
):
    async def settle(inside: aiosqlite.Connection) -> bool:
        await inside.execute("INSERT INTO meta VALUES ('half', 'x')")
        if trouble is not None:
            raise trouble
        return False

    async def put(key: str) -> None:
        if trouble is None:
            assert await library.put(key, spec, b"new one", 2.0, settle=settle) is False
        else:
            with pytest.raises(trouble if isinstance(trouble, type) else type(trouble)):
                await library.put(key, spec, b"new one", 2.0, settle=settle)

    for memory_bytes in (0, 10**6):
        async with shelf.open(memory_bytes=memory_bytes) as library:
            assert await library.put(KEY, spec, b"old", 1.0) is True
            await put(KEY)
            await put(key_for(1))
            stored = await library.get(KEY)
            assert stored is not None
            assert (stored.image, stored.draw_seconds) == (b"old", 1.0)
            assert await library.get(key_for(1)) is None
            assert shelf.files() == {shelf.path(KEY)}
            assert await library.stats() == LibraryStats(1, 3)


async def test_what_settle_writes_is_committed_with_the_picture(tmp_path: Path, spec: ImageSpec):
    shelf = Shelf(tmp_path)
    database = await Database.open(shelf.root / "sdq.sqlite3")
    library = await Library.open(
        database, shelf.pictures, retention_days=30, max_bytes=10**9, memory_bytes=0
    )

    async def settle(inside: aiosqlite.Connection) -> bool:
        # The order of the promise: who sees the job's end finds the picture.
        assert not shelf.path(KEY).exists()
        await inside.execute("INSERT INTO meta VALUES ('done', 'x')")
        return True

    async def done() -> bool:
        return bool(await database.fetch_all("SELECT 1 FROM meta WHERE name = 'done'"))

    async def broken_commit(_: aiosqlite.Connection) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiosqlite.Connection, "commit", broken_commit)
        with pytest.raises(StackError, match="is full"):
            await library.put(KEY, spec, b"picture", 1.0, settle=settle)
    assert not await done()
    assert shelf.files() == set()
    assert await library.put(KEY, spec, b"picture", 1.0, settle=settle) is True
    assert await done()
    assert await library.get(KEY) is not None
    await library.close()
    await database.close()


async def test_when_the_commit_fails_the_one_before_stays(shelf: Shelf, spec: ImageSpec):
    async def broken_commit(_: aiosqlite.Connection) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with shelf.open(memory_bytes=0) as library:
        await library.put(KEY, spec, b"old", 1.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiosqlite.Connection, "commit", broken_commit)
            with pytest.raises(StackError, match="is full"):
                await library.put(KEY, spec, b"new one", 1.0)
        stored = await library.get(KEY)
        assert stored is not None
        assert stored.image == b"old"
        assert shelf.files() == {shelf.path(KEY)}


async def test_killed_while_removing_the_rest_is_swept(shelf: Shelf, spec: ImageSpec):
    async with shelf.open() as library:
        await library.put(KEY, spec, b"picture", 1.0)
    kill_at(shelf, KEY, "removing")
    assert len(shelf.files()) == 1
    async with shelf.open() as library:
        assert await library.get(KEY) is None
        assert shelf.files() == set()


async def test_a_full_disk_is_said_in_words_and_leaves_nothing(
    shelf: Shelf, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with shelf.open() as library:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StackError, match="is full") as caught:
                await library.put(KEY, spec, b"picture", 1.0)
        assert "make room" in caught.value.hint
        assert shelf.files() == set()
        assert await library.get(KEY) is None
        await library.put(KEY, spec, b"picture", 1.0)
        assert await library.get(KEY) is not None


async def test_when_the_row_does_not_fit_the_file_goes_too(tmp_path: Path, spec: ImageSpec):
    shelf = Shelf(tmp_path)
    database = await Database.open(shelf.root / "sdq.sqlite3")
    library = await Library.open(
        database, shelf.pictures, retention_days=30, max_bytes=10**9, memory_bytes=10**6
    )
    pages = await database.fetch_one("PRAGMA page_count")
    assert pages is not None
    await database.fetch_all(f"PRAGMA max_page_count = {pages[0]}")
    added = 0

    async def fill() -> None:
        nonlocal added
        for number in range(500):
            await library.put(key_for(number), spec, b"picture", 1.0)
            added += 1

    with pytest.raises(StackError, match="is full"):
        await fill()
    assert len(shelf.files()) == (await library.stats()).pictures == added
    assert library.cached(key_for(added)) is None
    # Reading goes on although no last-used time can be written.
    assert await library.find(Question()) != ([], False)
    assert await library.get(key_for(0)) is not None
    await database.fetch_all("PRAGMA max_page_count = 100000")
    await library.close()
    await database.close()


async def test_opening_sweeps_what_a_killed_server_left(shelf: Shelf, spec: ImageSpec):
    async with shelf.open() as library:
        await library.put(KEY, spec, b"picture", 1.0)
        await library.put(key_for(1), spec, b"other", 1.0)
    shelf.path(key_for(1)).unlink()
    orphan = shelf.path(key_for(2))
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"no row")
    half = shelf.path(key_for(3)).with_suffix(".png.tmp")
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    (shelf.pictures / "README").write_text("not ours")
    async with shelf.open() as library:
        assert shelf.files() == {shelf.path(KEY), shelf.pictures / "README"}
        assert await library.stats() == LibraryStats(1, 7)
        assert await library.get(KEY) is not None


async def test_a_cancelled_put_is_finished_first(shelf: Shelf, spec: ImageSpec):
    async with shelf.open() as library:
        task = asyncio.create_task(library.put(KEY, spec, b"picture", 1.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert library.cached(KEY) is not None
        assert (await library.stats()).pictures == len(shelf.files()) == 1


async def test_a_directory_that_cannot_be_made_is_said_in_words(tmp_path: Path):
    (tmp_path / "library").write_text("in the way")
    with pytest.raises(StackError, match="library"):
        async with Shelf(tmp_path).open():
            pass
