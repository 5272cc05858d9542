"""The library's index: searching in words, filters, pages, pins, totals that are always right."""

import asyncio
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdq.server import search_text
from sdq.server.database import Database
from sdq.server.library import index as index_module
from sdq.server.library.index import LibraryStats, PictureIndex, Question
from sdq.server.library.memory import StoredImage
from sdq.spec import ImageSpec, Lora

BASE = ImageSpec("", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)
MODEL_QUERY = f'facts : "{search_text.model_fact("shapes")}"'


def named(number: int) -> str:
    return f"{number:064x}"


async def put(index: PictureIndex, number: int, at: float | None = None, **fields: object) -> None:
    spec = msgspec.structs.replace(BASE, **fields)
    stored = StoredImage(named(number), spec, b"x", 1.0)
    await index.put(stored, "0" * 64, float(number) if at is None else at)


async def fill(index: PictureIndex, prompts: list[str]) -> None:
    for number, prompt in enumerate(prompts):
        await put(index, number, prompt=prompt)


async def found(index: PictureIndex, words: str, limit: int = 100) -> list[str]:
    pictures, _ = await index.find(Question(words, limit=limit), 0.0)
    return [picture.spec.prompt for picture in pictures]


async def numbers(index: PictureIndex, used_since: float = 0.0, **question: object) -> list[int]:
    pictures, _ = await index.find(Question(**question), used_since)  # type: ignore[arg-type]
    return [int(picture.key, 16) for picture in pictures]


async def test_all_words_must_be_there_in_any_order_and_case(database: Database):
    index = PictureIndex(database)
    await fill(index, ["a red circle", "a Red square", "a blue circle", "CIRCLES, ALL RED"])
    assert await found(index, "circle RED") == ["a red circle"]
    assert await found(index, "circ* RED") == ["CIRCLES, ALL RED", "a red circle"]
    assert await found(index, '"red circle"') == ["a red circle"]
    assert await found(index, '"a red" OR NOT square') == []
    assert await found(index, '"A R"* -circle') == ["a red circle"]
    assert await found(index, "circle green") == []
    everything = ["CIRCLES, ALL RED", "a blue circle", "a Red square", "a red circle"]
    assert await found(index, "") == everything
    assert await found(index, "?!") == []


async def test_any_language_is_found(database: Database):
    index = PictureIndex(database)
    prompts = [
        "GRÜSSE, Straße",
        "東京タワーの夜",
        "ประเทศไทย",
        "हिन्दी चित्र",
        "🐱❤️ 100% c++",
        "e\u0301te\u0301",
    ]
    await fill(index, prompts)
    for words, prompt in [
        ("grusse strasse", prompts[0]),
        ("GRÜSSE", prompts[0]),
        ("タワー 東京", prompts[1]),
        ("夜*", prompts[1]),
        ("ไทย", prompts[2]),
        ("चित्र", prompts[3]),
        ("🐱", prompts[4]),
        ("C++", prompts[4]),
        ("100%", prompts[4]),
        ("ÉTÉ", prompts[5]),
    ]:
        assert await found(index, words) == [prompt], words
    assert await found(index, "京東") == []


async def test_the_negative_prompt_has_words_of_its_own(database: Database):
    index = PictureIndex(database)
    await put(index, 1, prompt="a hand", negative_prompt="blurry")
    await put(index, 2, prompt="blurry")
    assert await numbers(index, words="blurry") == [2]
    assert await numbers(index, negative="Blur*") == [1]
    assert await numbers(index, words="hand", negative="blurry") == [1]


async def test_filters(database: Database):
    index = PictureIndex(database)
    lora = Lora("Pixel-Art", "a" * 64, 0.5)
    await put(index, 1, prompt="m736861706573 s7")  # as the filters are written inside
    await put(index, 2, prompt="dog", model='sd "1.5"', seed=8)
    await put(index, 3, prompt="dog", width=64, loras=(lora,))
    assert await numbers(index, model="shapes") == [3, 1]
    assert await numbers(index, model='sd "1.5"') == [2]
    assert await numbers(index, seed=7) == [3, 1]
    assert await numbers(index, size=(64, 128)) == [3]
    assert await numbers(index, size=(128, 64)) == []
    assert await numbers(index, lora="pixel-ART") == [3]
    assert await numbers(index, words="dog", model="shapes", seed=7) == [3]
    assert await numbers(index, since=2.0) == [3, 2]
    assert await numbers(index, since=2.0, until=3.0, words="dog") == [2]
    assert await numbers(index, since=1e300) == []


async def test_pages_miss_nothing_and_show_nothing_twice(database: Database):
    index = PictureIndex(database)
    for number in range(7):
        await put(index, number, at=5.0, prompt="at the same moment")
    seen: list[str] = []
    question = Question("moment", limit=3)
    more = True
    while more:
        pictures, more = await index.find(question, 0.0)
        seen += [picture.key for picture in pictures]
        question = question._replace(before=pictures[-1].number)
    assert sorted(seen) == [named(number) for number in range(7)]
    assert len(seen) == 7


async def test_the_newest_come_first_and_one_drawn_again_is_new(database: Database):
    index = PictureIndex(database)
    await fill(index, [f"picture {number}" for number in range(10)])
    assert await found(index, "picture", limit=2) == ["picture 9", "picture 8"]
    await put(index, 3, at=20.0, prompt="painting 3")
    assert await numbers(index, limit=2) == [3, 9]
    assert await found(index, "painting") == ["painting 3"]
    assert "picture 3" not in await found(index, "picture")


async def test_a_found_picture_has_all_its_data(database: Database):
    index = PictureIndex(database)
    spec = msgspec.structs.replace(BASE, prompt="a dog")
    await index.put(StoredImage("0" * 64, spec, b"1234", 1.0), "0" * 64, 5.0)
    await index.mark_used({"0" * 64: 9.0, "f" * 64: 1.0})
    ((picture,), more) = await index.find(Question("dog"), 0.0)
    assert (picture.key, picture.spec, picture.size_bytes) == ("0" * 64, spec, 4)
    assert (picture.created_at, picture.last_used_at) == (5.0, 9.0)
    assert (picture.number, picture.pinned, more) == (5_000_000, False, False)
    await index.mark_used({"0" * 64: 7.0})
    assert await index.last_uses(["0" * 64, "1" * 64]) == {"0" * 64: 9.0}


async def test_pinned_ones_are_found_and_passed_over(database: Database):
    index = PictureIndex(database)
    await fill(index, ["one", "two", "three"])
    keys = [named(0), named(1)]
    assert await index.pin([*keys, "f" * 64], pinned=True) == keys
    assert await index.pin(keys, pinned=True) == []
    assert await numbers(index, pinned=True) == [1, 0]
    assert await numbers(index, pinned=True, words="two") == [1]
    assert await numbers(index, used_since=100.0) == [1, 0]
    assert await index.idle(100.0, 10) == [named(2)]
    assert await index.least_used(1_000, 10) == [named(2)]
    assert await index.pinned_totals() == LibraryStats(2, 2)
    await put(index, 1, at=9.0, prompt="two again")
    assert await numbers(index, pinned=True) == [1, 0]  # drawn again, pinned still
    assert await index.pin(keys, pinned=False) == keys
    assert await numbers(index, pinned=True) == []
    assert await index.pinned_totals() == LibraryStats(0, 0)


TEXT = st.text(
    st.sampled_from(
        string.ascii_letters[:6]
        + "AND OR NOT NEAR(^){}:+-%_\\'\"\u201c*[]ßÄäéİıΣς\u0301\n\x00,;東ไ🐱\ud800"
    ),
    max_size=14,
)


def test_whatever_is_typed_is_a_question(tmp_path: Path):
    """Never an error of SQLite's query language; and a prompt is found by all of its own words."""
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(tmp_path / "db"))
        index = PictureIndex(database)

        async def search(prompt: str, question: Question) -> list[str]:
            await index.remove(await index.keys(""))
            await put(index, 1, prompt=prompt)
            own = prompt.replace('"', " ").replace("\u201c", " ")
            assert not search_text.words_of(own) or await found(index, f'"{own}"') == [prompt]
            return [picture.spec.prompt for picture in (await index.find(question, 0.0))[0]]

        @given(prompt=TEXT, words=TEXT, negative=TEXT, model=TEXT, lora=TEXT)
        @settings(deadline=None, max_examples=150)
        def check(prompt: str, words: str, negative: str, model: str, lora: str) -> None:
            prompt = prompt.replace("\ud800", "")  # no spec can hold it
            runner.run(search(prompt, Question(words, negative, model=model, lora=lora)))

        try:
            check()
        finally:
            runner.run(database.close())


async def test_the_longest_question_is_answered(database: Database):
    index = PictureIndex(database)
    await put(index, 1, prompt="a " * 1_000)
    assert await numbers(index, words="a " * 500, negative='"' * 999) == []
    assert await numbers(index, words="a* " * 333) == [1]


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


@pytest.mark.parametrize(
    "query", ['words : "a"', 'words : "a" *', f'words : "a" AND {MODEL_QUERY}', MODEL_QUERY]
)
async def test_a_search_ends_when_it_has_enough(database: Database, query: str):
    """Not time, but SQLite's own count of steps: thirty times the pictures, about the same work."""
    index = PictureIndex(database)
    steps = []
    for last in (100, 3_000):
        done = (await index.totals()).pictures
        async with database.transaction() as inside:
            rows = [
                (number, named(number), "{}", "a b", "", search_text.facts_of(BASE))
                for number in range(done, last)
            ]
            await inside.executemany(
                "INSERT INTO pictures (number, key, spec, words, negative_words, plain_facts,"
                " size_bytes, sha256, draw_seconds, created_at, last_used_at)"
                " VALUES (?, ?, ?, ?, ?, ?, 1, '', 1.0, 1.0, 1.0)",
                rows,
            )
        steps.append(await steps_of(database, index_module._FIND_WORDS, (query, 0, 2**53, 0.0, 11)))
    assert steps[1] < 2 * steps[0]


async def steps_of(database: Database, sql: str, values: tuple[object, ...]) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection = database._live()
    await connection.set_progress_handler(count, 1)
    rows = await database.fetch_all(sql, values)
    await connection.set_progress_handler(None, 0)  # type: ignore[arg-type]
    assert len(rows) == 11
    return counted


async def test_no_query_walks_through_all_pictures_unasked(database: Database):
    """No time is measured: SQLite's plan says whether it sorts or walks an index."""
    statements = [
        value
        for name, value in vars(index_module).items()
        if name.isupper() and isinstance(value, str) and value.split()[0] in STATEMENTS
    ]
    assert len(statements) >= 12
    for sql in statements:
        plan = await database.fetch_all(f"EXPLAIN QUERY PLAN {sql}", ["[]"] * sql.count("?"))
        for step in (row["detail"] for row in plan):
            assert not (step.startswith("SCAN pictures") and "INDEX" not in step), (sql, step)
            assert not step.endswith("B-TREE FOR ORDER BY"), (sql, step)


STATEMENTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
