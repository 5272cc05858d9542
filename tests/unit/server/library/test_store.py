"""Rows and files together: what is found broken at the start, and what the disk refuses."""

import errno
from pathlib import Path

import pytest

from sdq.errors import StackError
from sdq.server.database import DATABASE_NAME, Database
from sdq.server.library.files import PictureFiles
from sdq.server.library.index import Question
from sdq.testing.shelf import Shelf


def refuse(*_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


async def test_pictures_of_a_lost_index_are_not_deleted(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
):
    """An old backup in the place of the database must not cost the pictures made since."""
    keys = await shelf.stock(3)
    (shelf.root / DATABASE_NAME).unlink()
    async with shelf.open() as library:
        assert (await library.stats()).pictures == 0
        assert "check --repair" in caplog.text
    assert shelf.files() == {shelf.path(key) for key in keys}


async def test_one_picture_without_a_row_is_what_a_kill_leaves(shelf: Shelf):
    keys = await shelf.stock(3)
    stray = shelf.path("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"placed, and killed before its row was committed")
    async with shelf.open():
        assert shelf.files() == {shelf.path(key) for key in keys}


async def test_a_library_on_a_disk_that_is_not_there_keeps_its_rows(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
):
    keys = await shelf.stock(3)
    away = shelf.root / "on another disk"
    shelf.pictures.rename(away)
    async with shelf.open(memory_bytes=0) as library:
        assert "none of 3 pictures" in caplog.text
        assert await library.get(keys[0]) is None
        assert (await library.stats()).pictures == 2
    shelf.pictures.rmdir()
    away.rename(shelf.pictures)
    async with shelf.open() as library:
        assert await library.get(keys[1]) is not None


async def test_a_folder_that_cannot_be_swept_does_not_keep_the_others_from_being_served(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    keys = await shelf.stock(3)
    monkeypatch.setattr(PictureFiles, "sweep", refuse)
    async with shelf.open() as library:
        assert "cannot be swept" in caplog.text
        assert [await library.get(key) is not None for key in keys] == [True] * 3


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), OSError(errno.EIO, "bad")])
async def test_a_file_that_the_disk_does_not_give_is_a_miss_and_drawn_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, error: OSError
):
    (key,) = await shelf.stock(1)
    image = shelf.path(key).read_bytes()

    def broken(*_: object) -> bytes:
        raise error

    async with shelf.open(memory_bytes=0) as library:
        stored = await library.get(key)
        assert stored is not None
        with monkeypatch.context() as patch:
            patch.setattr(PictureFiles, "read", broken)
            assert await library.get(key) is None
        await library.put(key, stored.spec, image, 1.0)
        assert await library.get(key) is not None


async def test_too_many_open_files_say_nothing_of_the_picture(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    (key,) = await shelf.stock(1)

    def out_of_files(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    async with shelf.open(memory_bytes=0) as library:
        with monkeypatch.context() as patch:
            patch.setattr(PictureFiles, "read", out_of_files)
            with pytest.raises(StackError, match="Too many open files"):
                await library.get(key)
        assert await library.get(key) is not None


@pytest.mark.parametrize("broken", ["hide", "commit"])
async def test_what_cannot_be_removed_is_there_still(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, broken: str
):
    keys = await shelf.stock(2)
    async with shelf.open(memory_bytes=0) as library:
        with monkeypatch.context() as patch:
            if broken == "hide":
                patch.setattr(Path, "rename", refuse)
            else:
                patch.setattr("aiosqlite.Connection.commit", refuse)
            with pytest.raises(StackError, match="denied"):
                await library.remove(keys)
        assert [await library.get(key) is not None for key in keys] == [True, True]
        assert len(shelf.files()) == 2
        assert (await library.remove(keys))[0] == 2
        assert shelf.files() == set()


async def test_a_damaged_file_whose_row_cannot_go_is_a_miss_all_the_same(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    (key,) = await shelf.stock(1)
    shelf.path(key).write_bytes(b"damaged")
    async with shelf.open(memory_bytes=0) as library:
        with monkeypatch.context() as patch:
            patch.setattr("aiosqlite.Connection.commit", refuse)
            assert await library.get(key) is None
        assert (await library.stats()).pictures == 1


async def write_spec(shelf: Shelf, key: str, spec: bytes) -> None:
    """As the disk would do it: bytes, whatever they are."""
    database = await Database.open(shelf.root / DATABASE_NAME)
    async with database.transaction() as inside:
        sql = "UPDATE pictures SET spec = CAST(? AS TEXT) WHERE key = ?"
        await inside.execute(sql, (spec, key))
    await database.close()


@pytest.mark.parametrize("spec", [b"{}", b"no JSON", b'{"prompt": 7}'])
async def test_a_row_that_makes_no_sense_is_a_miss_and_hides_no_other(shelf: Shelf, spec: bytes):
    keys = await shelf.stock(2)
    await write_spec(shelf, keys[0], spec)
    async with shelf.open(memory_bytes=0) as library:
        assert [picture.key for picture in (await library.find(Question()))[0]] == [keys[1]]
        assert await library.get(keys[0]) is None
        assert (await library.stats()).pictures == 1
        assert await library.get(keys[1]) is not None


async def test_a_row_that_is_no_text_is_said_in_words(shelf: Shelf):
    keys = await shelf.stock(2)
    await write_spec(shelf, keys[0], b'{"prompt": "\xff"}')
    async with shelf.open(memory_bytes=0) as library:
        with pytest.raises(StackError, match="damaged") as caught:
            await library.get(keys[0])
        assert "check --repair" in caught.value.hint
        assert await library.get(keys[1]) is not None


async def test_closing_with_a_full_disk_is_no_failure(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    (key,) = await shelf.stock(1)
    with monkeypatch.context() as patch:
        async with shelf.open() as library:
            await library.get(key)
            patch.setattr("aiosqlite.Connection.commit", refuse)
