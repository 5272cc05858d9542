"""The library's index: searching in words, totals that are always right."""

import asyncio
import string
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sdq.server.database import Database
from sdq.server.library import index as index_module
from sdq.server.library.index import LibraryStats, PictureIndex, fold
from sdq.server.library.memory import StoredImage
from sdq.spec import ImageSpec, normalize_text

BASE = ImageSpec("", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)


async def fill(index: PictureIndex, prompts: list[str]) -> None:
    for number, prompt in enumerate(prompts):
        spec = msgspec.structs.replace(BASE, prompt=prompt)
        await index.put(StoredImage(f"{number:064x}", spec, b"x", 1.0), "0" * 64, float(number))


async def found(index: PictureIndex, words: str, limit: int = 100) -> list[str]:
    return [picture.spec.prompt for picture in await index.find(words, limit, 0.0)]


async def test_all_words_must_be_there_in_any_order_and_case(database: Database):
    index = PictureIndex(database)
    await fill(index, ["a red circle", "a Red square", "a blue circle", "CIRCLES, ALL RED"])
    assert await found(index, "circle RED") == ["CIRCLES, ALL RED", "a red circle"]
    assert await found(index, "") == [
        "CIRCLES, ALL RED",
        "a blue circle",
        "a Red square",
        "a red circle",
    ]
    assert await found(index, "circle green") == []


async def test_the_newest_come_first_and_no_more_than_asked_for(database: Database):
    index = PictureIndex(database)
    await fill(index, [f"picture {number}" for number in range(10)])
    assert await found(index, "picture", limit=2) == ["picture 9", "picture 8"]


async def test_a_found_picture_has_all_its_data(database: Database):
    index = PictureIndex(database)
    spec = msgspec.structs.replace(BASE, prompt="a dog")
    await index.put(StoredImage("0" * 64, spec, b"1234", 1.0), "0" * 64, 5.0)
    await index.mark_used({"0" * 64: 9.0, "f" * 64: 1.0})
    (picture,) = await index.find("dog", 5, 0.0)
    assert (picture.key, picture.spec, picture.size_bytes) == ("0" * 64, spec, 4)
    assert (picture.created_at, picture.last_used_at) == (5.0, 9.0)
    await index.mark_used({"0" * 64: 7.0})
    assert await index.last_uses(["0" * 64, "1" * 64]) == {"0" * 64: 9.0}


async def test_marks_and_letters_have_no_second_meaning(database: Database):
    index = PictureIndex(database)
    prompts = ["100% wool", "100 wool", "a_b", "axb", "back\\slash", "it's 'quoted'", 'say "x"']
    await fill(index, [*prompts, "GRÜSSE", "grusse", "Straße", "e\u0301t\u00e9", "[red]", "*?"])
    for words, prompt in [
        ("0% w", "100% wool"),
        ("a_b", "a_b"),
        ("\\", "back\\slash"),
        ("'quoted'", "it's 'quoted'"),
        ('"x"', 'say "x"'),
        ("grüsse", "GRÜSSE"),
        ("STRASSE", "Straße"),
        ("ÉTÉ", "e\u0301t\u00e9"),
        ("[RED]", "[red]"),
        ("*?", "*?"),
    ]:
        assert await found(index, words) == [prompt]


TEXT = st.text(
    st.sampled_from(string.ascii_letters[:6] + "ABC %_\\'\"*[]ßÄäéİıΣς\u0301\n\x00,;:-"),
    max_size=12,
)


def test_finding_is_searching_for_folded_words(tmp_path: Path):
    """Against the same rule in Python, whatever the characters."""
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(tmp_path / "db"))
        index = PictureIndex(database)

        async def search(prompts: list[str], words: str) -> list[str]:
            await index.remove(await index.keys(""))
            await fill(index, prompts)
            return await found(index, words)

        @given(prompts=st.lists(TEXT, min_size=1, max_size=4), words=TEXT)
        @settings(deadline=None)
        def check(prompts: list[str], words: str) -> None:
            normal = [normalize_text(prompt) for prompt in prompts]
            wanted = [fold(word) for word in words.split()]
            expected = [p for p in reversed(normal) if all(word in fold(p) for word in wanted)]
            assert runner.run(search(normal, words)) == expected

        try:
            check()
        finally:
            runner.run(database.close())


async def test_totals_follow_adding_replacing_and_removing(database: Database):
    index = PictureIndex(database)
    assert await index.totals() == LibraryStats(0, 0)
    for number, size in [(1, 10), (2, 20), (1, 5), (3, 1)]:
        stored = StoredImage(f"{number:064x}", BASE, bytes(size), 1.0)
        await index.put(stored, "0" * 64, float(number))
    assert await index.totals() == LibraryStats(3, 26)
    assert await index.remove([f"{2:064x}", f"{9:064x}"]) == {f"{2:064x}": 20}
    assert await index.totals() == LibraryStats(2, 6)


async def test_the_least_used_are_just_enough(database: Database):
    index = PictureIndex(database)
    for number in range(5):
        stored = StoredImage(f"{number:064x}", BASE, bytes(10), 1.0)
        await index.put(stored, "0" * 64, float(10 - number))
    keys = [f"{number:064x}" for number in (4, 3, 2, 1, 0)]
    assert await index.least_used(0, 10) == []
    assert await index.least_used(1, 10) == keys[:1]
    assert await index.least_used(11, 10) == keys[:2]
    assert await index.least_used(1_000, 3) == keys[:3]
    assert await index.idle(8.0, 10) == keys[:2]


async def test_no_query_walks_through_all_pictures_unasked(database: Database):
    """No time is measured: SQLite's plan says whether it sorts or walks an index."""
    statements = [value for name, value in vars(index_module).items() if name.isupper()]
    assert len(statements) >= 9
    for sql in statements:
        plan = await database.fetch_all(f"EXPLAIN QUERY PLAN {sql}", ["[]"] * sql.count("?"))
        for step in (row["detail"] for row in plan):
            assert step != "SCAN pictures", sql
            assert not step.endswith("B-TREE FOR ORDER BY"), sql
