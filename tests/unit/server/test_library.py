"""The library: whole or not at all, within its bounds, the same picture for the same key."""

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sdq.errors import StackError, UsageError
from sdq.server import library as library_module
from sdq.server.database import Database
from sdq.server.library import Library, LibraryStats
from sdq.spec import ImageSpec
from sdq.testing.rig import Clock

DAY = 86_400


def key_for(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


KEY = key_for(0)


class Shelf:
    """A data directory whose library can be opened again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures = root / "library"
        self.clock = Clock()

    @asynccontextmanager
    async def open(
        self, *, max_bytes: int = 10**9, memory_bytes: int = 10**6, days: float = 30
    ) -> AsyncIterator[Library]:
        database = await Database.open(self.root / "sdq.sqlite3")
        try:
            library = await Library.open(
                database,
                self.pictures,
                retention_days=days,
                max_bytes=max_bytes,
                memory_bytes=memory_bytes,
                clock=self.clock,
            )
            yield library
            await library.close()
        finally:
            await database.close()

    def path(self, key: str) -> Path:
        return self.pictures / key[:2] / f"{key}.png"

    def files(self) -> set[Path]:
        return {path for path in self.pictures.rglob("*") if path.is_file()}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_what_was_put_comes_back_as_it_was(shelf: Shelf, spec: ImageSpec):
    async with shelf.open() as library:
        assert await library.get(KEY) is None
        await library.put(KEY, spec, b"picture", 1.5)
        quick = library.cached(KEY)
    async with shelf.open() as library:
        assert library.cached(KEY) is None
        stored = await library.get(KEY)
        assert stored == quick == (KEY, spec, b"picture", 1.5)
        assert library.cached(KEY) == stored
        assert await library.stats() == LibraryStats(1, 7)


async def test_putting_again_replaces(shelf: Shelf, spec: ImageSpec):
    async with shelf.open() as library:
        await library.put(KEY, spec, b"first", 1.0)
        await library.put(KEY, spec, b"second one", 2.0)
        stored = library.cached(KEY)
        assert stored is not None
        assert stored.image == b"second one"
        assert await library.stats() == LibraryStats(1, 10)
    async with shelf.open() as library:
        stored = await library.get(KEY)
        assert stored is not None
        assert (stored.image, stored.draw_seconds) == (b"second one", 2.0)


async def test_a_row_without_its_file_is_a_miss_and_goes(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(memory_bytes=0) as library:
        await library.put(KEY, spec, b"picture", 1.0)
        shelf.path(KEY).unlink()
        assert await library.has([KEY]) == {KEY}
        assert await library.get(KEY) is None
        assert await library.has([KEY]) == set()
        assert await library.stats() == LibraryStats(0, 0)


@pytest.mark.parametrize("damage", [b"PICTURE", b"pict", b"picture and more", b""])
async def test_a_damaged_file_is_a_miss_and_goes(shelf: Shelf, spec: ImageSpec, damage: bytes):
    async with shelf.open(memory_bytes=0) as library:
        await library.put(KEY, spec, b"picture", 1.0)
        shelf.path(KEY).write_bytes(damage)
        assert await library.get(KEY) is None
        assert await library.stats() == LibraryStats(0, 0)
        assert shelf.files() == set()
        await library.put(KEY, spec, b"picture", 1.0)
        assert await library.get(KEY) is not None


async def test_a_file_that_cannot_be_read_is_said_in_words(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(memory_bytes=0) as library:
        await library.put(KEY, spec, b"picture", 1.0)
        shelf.path(KEY).unlink()
        shelf.path(KEY).mkdir()
        with pytest.raises(StackError, match="cannot be used"):
            await library.get(KEY)
        shelf.path(KEY).rmdir()


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


async def test_a_cancelled_put_is_finished_first(shelf: Shelf, spec: ImageSpec):
    async with shelf.open() as library:
        task = asyncio.create_task(library.put(KEY, spec, b"picture", 1.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert library.cached(KEY) is not None
        assert (await library.stats()).pictures == len(shelf.files()) == 1


async def test_readers_and_writers_of_one_key_see_whole_pictures(shelf: Shelf, spec: ImageSpec):
    """With no memory, so that every read meets files that are being replaced."""
    pictures = {bytes([number]) * (1_000 + number) for number in range(20)}

    async with shelf.open(memory_bytes=0) as library:
        await library.put(KEY, spec, min(pictures), 1.0)

        async def write() -> None:
            for picture in pictures:
                await library.put(KEY, spec, picture, 1.0)

        async def read() -> None:
            while not writing.done():
                stored = await library.get(KEY)
                assert stored is not None
                assert stored.image in pictures

        writing = asyncio.create_task(write())
        await asyncio.gather(writing, read(), read())
        assert (await library.stats()).pictures == 1


async def test_a_slow_reader_does_not_bring_an_old_picture_back(
    shelf: Shelf, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
):
    async with shelf.open() as library:
        await library.put(KEY, spec, b"old", 1.0)
    async with shelf.open() as library:
        reading, go_on = asyncio.Event(), asyncio.Event()
        read = library._read

        async def slow_read(key: str):
            found = await read(key)
            reading.set()
            await go_on.wait()
            return found

        monkeypatch.setattr(library, "_read", slow_read)
        slow = asyncio.create_task(library.get(KEY))
        await reading.wait()
        await library.put(KEY, spec, b"new", 1.0)
        go_on.set()
        await slow
        stored = library.cached(KEY)
        assert stored is not None
        assert stored.image == b"new"
        reading.clear()
        go_on.clear()
        library._memory.discard(KEY)
        slow = asyncio.create_task(library.get(KEY))
        await reading.wait()
        assert await library.remove([KEY]) == (1, 3)
        go_on.set()
        await slow
        assert library.cached(KEY) is None


async def test_what_was_not_used_for_the_retention_is_a_miss(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(days=30) as library:
        await library.put(KEY, spec, b"picture", 1.0)
        shelf.clock.now += 30 * DAY + 1
        assert library.cached(KEY) is None
        assert await library.get(KEY) is None
        assert await library.has([KEY]) == set()
        assert await library.find("", 10) == []
        assert await library.prune() == (1, 7)
        assert shelf.files() == set()


async def test_use_renews_the_retention_also_over_a_restart(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(days=30) as library:
        for number in range(3):
            await library.put(key_for(number), spec, b"picture", 1.0)
        shelf.clock.now += 20 * DAY
        assert library.cached(key_for(0))
    async with shelf.open(days=30) as library:
        assert await library.get(key_for(1))
        shelf.clock.now += 20 * DAY
        assert await library.has([key_for(number) for number in range(3)]) == {
            key_for(0),
            key_for(1),
        }
        assert await library.prune() == (1, 7)
        assert await library.get(key_for(2)) is None
        assert await library.get(key_for(1)) is not None


async def test_pruning_by_size_takes_the_least_recently_used(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(max_bytes=500) as library:
        for number in range(10):
            shelf.clock.now += 1
            await library.put(key_for(number), spec, bytes(100), 1.0)
        shelf.clock.now += 1
        assert library.cached(key_for(0))  # not yet written down, and counts all the same
        assert await library.prune() == (5, 500)
        left = await library.has([key_for(number) for number in range(10)])
        assert left == {key_for(number) for number in (0, 6, 7, 8, 9)}
        assert await library.stats() == LibraryStats(5, 500)
        assert len(shelf.files()) == 5
        assert await library.prune() == (0, 0)


async def test_pruning_and_removing_work_in_batches(
    shelf: Shelf, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(library_module, "REMOVAL_BATCH", 3)
    async with shelf.open(max_bytes=0) as library:
        for number in range(8):
            await library.put(key_for(number), spec, bytes(10), 1.0)
        assert await library.remove([key_for(number) for number in (0, 1, 2, 3, 99)]) == (4, 40)
        assert library.cached(key_for(0)) is None
        assert await library.prune() == (4, 40)
        assert shelf.files() == set()


async def test_last_used_times_that_wait_are_bounded(
    shelf: Shelf, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(library_module, "MAX_PENDING_USES", 3)
    async with shelf.open(memory_bytes=0) as library:
        for number in range(6):
            await library.put(key_for(number), spec, b"picture", 1.0)
            await library.get(key_for(number))
            assert len(library._used) <= 3


async def test_last_used_times_that_cannot_be_written_wait(
    shelf: Shelf, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
):
    async with shelf.open() as library:
        await library.put(KEY, spec, b"picture", 1.0)
        shelf.clock.now += 5
        assert library.cached(KEY)

        async def full(_: object) -> None:
            raise StackError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(library._index, "mark_used", full)
            with pytest.raises(StackError):
                await library.flush_used()
        await library.flush_used()
        assert (await library.find("", 1))[0].last_used_at == shelf.clock.now


async def test_a_key_is_resolved_from_its_beginning(shelf: Shelf, spec: ImageSpec):
    alike = ["abcd" + "0" * 60, "abcd" + "1" * 60]
    async with shelf.open() as library:
        for key in alike:
            await library.put(key, spec, b"picture", 1.0)
        assert await library.resolve("abcd0") == alike[0]
        assert await library.resolve(alike[1]) == alike[1]
        with pytest.raises(UsageError, match="more than one") as caught:
            await library.resolve("abcd")
        assert "abcd0000" in caught.value.hint
        with pytest.raises(UsageError, match="no picture"):
            await library.resolve("abce")
        for wrong in ("", "xyz", "abc%", "ABCD"):
            with pytest.raises(UsageError, match="not the beginning of a key"):
                await library.resolve(wrong)


async def test_a_directory_that_cannot_be_made_is_said_in_words(tmp_path: Path):
    (tmp_path / "library").write_text("in the way")
    with pytest.raises(StackError, match="library"):
        async with Shelf(tmp_path).open():
            pass


async def test_pictures_are_only_in_memory_when_they_fit(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(memory_bytes=10_000) as library:
        await library.put(KEY, spec, bytes(20_000), 1.0)
        assert library.cached(KEY) is None
        assert await library.get(KEY) is not None
