"""What scripts may ask of a library, and going through all of it."""

from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from sdq import Client
from sdq.client import questions
from sdq.client.searching import question_of
from sdq.errors import UsageError
from sdq.protocol.library_messages import (
    FindPictures,
    FoundPictures,
    Pinned,
    PinPictures,
    StoredPicture,
)
from sdq.protocol.messages import ClientMessage
from sdq.spec import SpecDraft
from sdq.testing.transport import ScriptedPeer, ScriptedServer, resolved

PICTURES = [
    StoredPicture(f"{number:064x}", resolved(SpecDraft(prompt="x")), 1, 1.0, 1.0, number=number)
    for number in range(1, 8)
]


async def answer(peer: ScriptedPeer, message: ClientMessage) -> None:
    if isinstance(message, FindPictures):
        before = 100 if message.before is None else message.before
        older = [picture for picture in reversed(PICTURES) if picture.number < before]
        some = tuple(older[: message.limit])
        peer.send(FoundPictures(message.request_id, some, len(older) > message.limit))
    elif isinstance(message, PinPictures):
        peer.send(Pinned(message.request_id, tuple(key * 16 for key in message.keys), 1))


def test_filters_in_the_words_of_scripts() -> None:
    when = datetime(2026, 11, 1, tzinfo=UTC)
    message = question_of("red", 5, {"size": (8, 16), "since": when, "until": 9, "pinned": True})
    assert (message.width, message.height) == (8, 16)
    assert (message.since, message.until) == (when.timestamp(), 9.0)
    assert (message.words, message.limit, message.pinned) == ("red", 5, True)
    assert question_of("", 1, {"size": None, "since": -5.0}).since == 0.0


@pytest.mark.parametrize(("words", "limit"), [("x" * 1_001, 1), ("", 0), ("", 1_001)])
def test_what_no_server_would_take(words: str, limit: int) -> None:
    with pytest.raises(UsageError):
        question_of(words, limit, {})


async def test_a_whole_library_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PAGE_PICTURES", 3)
    async with ScriptedServer(answer) as server, await Client.connect(server.address) as client:
        numbers = [picture.number async for picture in client.find_each("x")]
        assert numbers == [7, 6, 5, 4, 3, 2, 1]
        asked = [message for message in server.heard if isinstance(message, FindPictures)]
        assert [message.before for message in asked] == [None, 5, 2]
        async with aclosing(client.find_each("x")) as pictures:
            assert (await anext(pictures)).number == 7
        assert len(server.heard) == len(asked) + 2  # hello, and one page more
        assert await client.find("x", 2, before=3) == (PICTURES[1], PICTURES[0])


async def test_pinning() -> None:
    async with ScriptedServer(answer) as server, await Client.connect(server.address) as client:
        assert (await client.pin(["abcd"])).keys == ("abcd" * 16,)
        await client.pin(["abcd"], pinned=False)
        sent = [message for message in server.heard if isinstance(message, PinPictures)]
        assert [message.pinned for message in sent] == [True, False]
