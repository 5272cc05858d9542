"""The library when something dies: killed at every step, full disks, cancels."""

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdq.errors import StackError
from sdq.server.database import Database
from sdq.server.library import Library, LibraryStats
from sdq.spec import ImageSpec
from sdq.testing.shelf import Shelf


def key_for(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


KEY = key_for(0)

KILLED = """
import asyncio, os, pathlib, signal, sys
from sdq.server.database import Database
from sdq.server.files import PictureFiles
from sdq.server.index import PictureIndex
from sdq.server.library import Library
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
        PictureIndex.put = die
    elif moment == "removing":
        PictureFiles.remove = die
        await library.remove([key])
    await library.put(key, spec, b"a new picture", 1.0)
    die()

asyncio.run(main())
"""


def kill_at(shelf: Shelf, key: str, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(shelf.root), key, moment]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", ["before-flush", "before-rename", "before-commit"])
async def test_killed_in_the_middle_of_put_there_is_no_picture(shelf: Shelf, moment: str):
    kill_at(shelf, KEY, moment)
    assert len(shelf.files()) == 1
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
    assert await library.find("", 10) != []
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
