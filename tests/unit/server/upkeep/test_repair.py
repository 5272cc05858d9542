"""Pictures' rows and files, torn apart in every way and brought together again."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from sdq.server.database import DATABASE_NAME
from sdq.server.library.files import FOLDERS
from sdq.server.library.index import Question
from sdq.server.upkeep.repair import Flaw, PictureCheck, PictureRepair
from sdq.testing.rig import png
from sdq.testing.shelf import Shelf


@contextmanager
def index_of(shelf: Shelf) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(shelf.root / DATABASE_NAME, isolation_level=None)) as connection:
        yield connection


def flaws_of(shelf: Shelf) -> list[Flaw]:
    with index_of(shelf) as connection:
        check = PictureCheck(shelf.pictures, connection)
        return [flaw for folder in FOLDERS for flaw in check.flaws(folder)]


def mend(shelf: Shelf) -> list[str]:
    flaws = flaws_of(shelf)
    with index_of(shelf) as connection:
        repair = PictureRepair(shelf.pictures, shelf.root / "aside", connection)
        return [repair.mend(flaw) for flaw in flaws]


def aside(shelf: Shelf) -> list[str]:
    folder = shelf.root / "aside"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


COLUMNS = """
SELECT key, spec, words, negative_words, facts, size_bytes, sha256, last_used_at
FROM pictures ORDER BY key
"""


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


async def test_what_is_whole_has_no_flaws(shelf: Shelf):
    await shelf.stock(3)
    assert flaws_of(shelf) == []


async def test_a_file_without_its_row_gets_it_back(shelf: Shelf):
    keys = await shelf.stock(3)
    os.utime(shelf.path(keys[0]), (1_000, 1_000))  # drawn long ago, and wanted all the same
    shelf.clock.now = 2_000_000_000.0
    with index_of(shelf) as connection:
        before = connection.execute(COLUMNS).fetchall()
        connection.execute("DELETE FROM pictures")
    assert [flaw.kind for flaw in flaws_of(shelf)] == ["file"] * 3
    assert mend(shelf) == ["it has its row again"] * 3
    assert flaws_of(shelf) == []
    with index_of(shelf) as connection:
        after = connection.execute(COLUMNS).fetchall()
    assert [row[:-1] for row in after] == [row[:-1] for row in before]
    shelf.clock.now = after[0][-1] + 1
    async with shelf.open() as library:
        assert (await library.prune())[0] == 0
        for key in keys:
            assert await library.get(key) is not None
        assert len((await library.find(Question("picture")))[0]) == 3


async def test_a_picture_under_a_wrong_key_gets_no_row(shelf: Shelf):
    key, other = await shelf.stock(2)
    stolen = shelf.path("ab" * 32)
    stolen.parent.mkdir(exist_ok=True)
    stolen.write_bytes(shelf.path(key).read_bytes())
    foreign = shelf.path("cd" * 32)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(png())
    assert all("moved to" in done for done in mend(shelf))
    assert aside(shelf) == sorted([stolen.name, foreign.name])
    assert flaws_of(shelf) == []
    async with shelf.open() as library:
        assert (await library.stats()).pictures == 2
        assert await library.get(other) is not None


@pytest.mark.parametrize(
    ("tear", "expected"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "bytes instead of"),
        (damage, "has changed"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
async def test_a_row_whose_file_is_damaged_goes_and_the_file_is_kept_aside(
    shelf: Shelf, tear: Callable[[Path], None], expected: str
):
    key, other = await shelf.stock(2)
    tear(shelf.path(key))
    (flaw,) = flaws_of(shelf)
    assert flaw.kind == "row"
    assert expected in flaw.text
    (done,) = mend(shelf)
    assert "drawn again" in done
    assert aside(shelf) == ([] if expected == "missing" else [f"{key}.png"])
    assert flaws_of(shelf) == []
    async with shelf.open(memory_bytes=0) as library:
        assert await library.get(key) is None
        assert await library.get(other) is not None
        assert (await library.stats()).pictures == 1


async def test_a_row_that_is_not_its_files_is_made_anew(shelf: Shelf):
    """As after a kill between the new file and its row."""
    (key,) = await shelf.stock(1)
    with index_of(shelf) as connection:
        sql = "UPDATE pictures SET sha256 = ?, size_bytes = 5, draw_seconds = 9"
        connection.execute(sql, ("0" * 64,))
    assert mend(shelf) == ["its row was made anew"]
    assert flaws_of(shelf) == []
    async with shelf.open(memory_bytes=0) as library:
        stored = await library.get(key)
        assert stored is not None
        assert stored.draw_seconds == 9
        assert (await library.stats()).bytes == len(stored.image)


async def test_a_replacement_killed_half_way_gives_the_former_back(shelf: Shelf):
    (key,) = await shelf.stock(1)
    path = shelf.path(key)
    image = path.read_bytes()
    path.with_name(path.name + ".old").write_bytes(image)
    path.write_bytes(png())
    assert mend(shelf)[0] == "the one before is there again"
    assert path.read_bytes() == image
    assert flaws_of(shelf) == []


async def test_a_picture_that_was_broken_when_it_came_is_found(shelf: Shelf):
    (key,) = await shelf.stock(1)
    async with shelf.open() as library:
        stored = await library.get(key)
        assert stored is not None
        await library.put(key, stored.spec, stored.image[:-4], 1.0)
    (flaw,) = flaws_of(shelf)
    assert "no whole picture: it is cut" in flaw.text
    mend(shelf)
    assert aside(shelf) == [f"{key}.png"]


async def test_what_kills_left_is_deleted_and_what_is_in_the_way_is_moved(shelf: Shelf):
    (key,) = await shelf.stock(1)
    for suffix in (".tmp", ".old", ".gone"):
        shelf.path(key).with_name(f"{key}.png{suffix}").write_bytes(b"half")
    free = next(folder for folder in FOLDERS if not (shelf.pictures / folder).exists())
    (shelf.pictures / free).write_text("in the way")
    (shelf.pictures / "README").write_text("of the operator")
    assert sorted(flaw.kind for flaw in flaws_of(shelf)) == ["place", *["temporary"] * 3]
    mend(shelf)
    assert aside(shelf) == [free]
    assert shelf.files() == {shelf.path(key), shelf.pictures / "README"}


async def test_nothing_is_overwritten_aside(shelf: Shelf):
    for content in (b"first", b"second"):
        stray = shelf.path("ab" * 32)
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(content)
        if not (shelf.root / DATABASE_NAME).exists():
            await shelf.stock(1)
            stray.write_bytes(content)
        mend(shelf)
    kept = [path.read_bytes() for path in sorted((shelf.root / "aside").iterdir())]
    assert kept == [b"first", b"second"]


async def test_what_may_not_be_read_is_left_alone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    await shelf.stock(1)

    def refuse(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        mend(shelf)
    monkeypatch.undo()
    assert flaws_of(shelf) == []


async def test_a_text_that_was_tampered_with_gets_no_row(shelf: Shelf):
    """The key is computed again: what the file says of itself is not enough."""
    from sdq import metadata

    (key,) = await shelf.stock(1)
    said = metadata.read(shelf.path(key).read_bytes())
    assert said is not None
    spec = msgspec.structs.replace(said.spec, prompt="something else")
    from PIL import Image

    picture = Image.new("RGB", (spec.width, spec.height))
    lying = metadata.png_bytes(picture, msgspec.structs.replace(said, spec=spec))
    shelf.path(key).write_bytes(lying)
    assert "moved to" in mend(shelf)[0]
