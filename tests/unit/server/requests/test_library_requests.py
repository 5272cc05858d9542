"""Requests about stored pictures, against a real library."""

import pytest

from sdq.errors import NotInLibrary, UsageError
from sdq.protocol.library_messages import (
    FetchPicture,
    FindPictures,
    FoundPictures,
    Pinned,
    PinPictures,
    Removed,
    RemovePictures,
)
from sdq.protocol.messages import Origin, Picture
from sdq.server.library.library import Library
from sdq.server.requests.library_requests import LibraryRequests, question_of
from sdq.testing.shelf import Shelf


async def found(library: Library, **question: object) -> list[str]:
    answer = await LibraryRequests(library).answer(FindPictures(1, **question))  # type: ignore[arg-type]
    assert isinstance(answer, FoundPictures)
    return [picture.key for picture in answer.pictures]


async def test_all_fields_of_a_question_are_asked(shelf: Shelf) -> None:
    message = FindPictures(
        1, words="a", limit=3, negative="b", model="m", width=8, height=16, since=1.0, until=2.0,
        seed=4, lora="l", pinned=True, before=9,
    )  # fmt: skip
    question = question_of(message)._asdict()
    assert question.pop("size") == (8, 16)
    for name, value in question.items():
        assert value == getattr(message, name)
    with pytest.raises(UsageError):
        question_of(FindPictures(1, width=8))


async def test_pages(shelf: Shelf) -> None:
    keys = await shelf.stock(3)
    async with shelf.open() as library:
        answer = await LibraryRequests(library).answer(FindPictures(7, words="PICTURE", limit=2))
        assert isinstance(answer, FoundPictures)
        assert (answer.request_id, answer.more) == (7, True)
        before = answer.pictures[-1].number
        assert [picture.key for picture in answer.pictures] == keys[:0:-1]
        assert await found(library, before=before) == keys[:1]


async def test_fetching(shelf: Shelf) -> None:
    (key,) = await shelf.stock(1)
    async with shelf.open(memory_bytes=0) as library:
        answer = await LibraryRequests(library).answer(FetchPicture(3, key[:8]))
        assert isinstance(answer, Picture)
        assert (answer.key, answer.cache, answer.remaining) == (key, Origin.HIT, 0)
        shelf.path(key).unlink()
        with pytest.raises(NotInLibrary):
            await LibraryRequests(library).answer(FetchPicture(3, key[:8]))


async def test_pinning_all_or_none(shelf: Shelf) -> None:
    one, two = await shelf.stock(2)
    async with shelf.open() as library:
        requests = LibraryRequests(library)
        answer = await requests.answer(PinPictures(3, (one[:8], one, two)))
        assert answer == Pinned(3, (one, two), 2)
        assert await requests.answer(PinPictures(3, (one,))) == Pinned(3, (one,), 0)
        with pytest.raises(UsageError):
            await requests.answer(PinPictures(3, (one, "0000000"), pinned=False))
        assert set(await found(library, pinned=True)) == {one, two}


async def test_removing_a_pinned_one(shelf: Shelf) -> None:
    one, _ = await shelf.stock(2)
    async with shelf.open() as library:
        requests = LibraryRequests(library)
        await requests.answer(PinPictures(1, (one,)))
        answer = await requests.answer(RemovePictures(2, (one[:6], one)))
        assert isinstance(answer, Removed)
        assert answer.pictures == 1
        assert await found(library, pinned=True) == []
