"""The library: whole or not at all, within its bounds, the same picture for the same key."""

import asyncio
import hashlib

import pytest

from sdq.errors import StackError, UsageError
from sdq.server.library import library as library_module
from sdq.server.library.library import LibraryStats, Question
from sdq.spec import ImageSpec
from sdq.testing.shelf import Shelf

DAY = 86_400


def key_for(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


KEY = key_for(0)


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


async def test_a_file_that_cannot_be_read_is_a_miss(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(memory_bytes=0) as library:
        await library.put(KEY, spec, b"picture", 1.0)
        shelf.path(KEY).unlink()
        shelf.path(KEY).mkdir()
        assert await library.get(KEY) is None
        with pytest.raises(StackError, match="cannot be used"):
            await library.put(KEY, spec, b"picture", 1.0)
        shelf.path(KEY).rmdir()
        await library.put(KEY, spec, b"picture", 1.0)
        assert await library.get(KEY) is not None


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
        assert await library.find(Question()) == ([], False)
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
        assert (await library.find(Question(limit=1)))[0][0].last_used_at == shelf.clock.now


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


async def test_pictures_are_only_in_memory_when_they_fit(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(memory_bytes=10_000) as library:
        await library.put(KEY, spec, bytes(20_000), 1.0)
        assert library.cached(KEY) is None
        assert await library.get(KEY) is not None


async def test_what_is_pinned_stays_whatever_its_age_and_size(shelf: Shelf, spec: ImageSpec):
    keys = [key_for(number) for number in range(3)]
    async with shelf.open(days=1, max_bytes=15, memory_bytes=0) as library:
        for key in keys:
            shelf.clock.now += 1
            await library.put(key, spec, bytes(10), 1.0)
        assert await library.pin(keys[:2], pinned=True) == keys[:2]
        assert await library.prune() == (1, 10)
        shelf.clock.now += 10 * DAY
        assert await library.prune() == (0, 0)
        assert await library.has(keys) == set(keys[:2])
        assert await library.get(keys[0]) is not None
        found, _ = await library.find(Question())
        assert {picture.key for picture in found} == set(keys[:2])
        assert await library.pinned() == LibraryStats(2, 20)
        # All is pinned and over the limit: what is drawn is taken in all the same.
        assert await library.put(keys[2], spec, bytes(10), 1.0)


async def test_what_is_unpinned_counts_as_used_just_then(shelf: Shelf, spec: ImageSpec):
    async with shelf.open(days=1) as library:
        await library.put(KEY, spec, b"picture", 1.0)
        await library.pin([KEY], pinned=True)
        shelf.clock.now += 10 * DAY
        assert await library.pin([KEY, KEY], pinned=False) == [KEY]
        assert await library.prune() == (0, 0)
        shelf.clock.now += 2 * DAY
        assert await library.prune() == (1, 7)
