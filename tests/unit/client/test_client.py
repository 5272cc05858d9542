"""The client library against a scripted server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest

from sdq import Client
from sdq.errors import (
    DeadlinePassed,
    GenerationFailed,
    InvalidSpec,
    NobodyCanDoIt,
    ProtocolError,
    ServerBusy,
    UsageError,
)
from sdq.protocol.messages import (
    Accepted,
    Cancel,
    ClientMessage,
    Failure,
    FetchPicture,
    FindPictures,
    FoundPictures,
    Generate,
    Limits,
    ListModels,
    Models,
    Origin,
    Picture,
    Progress,
    PruneLibrary,
    Removed,
    RemovePictures,
)
from sdq.spec import SpecDraft
from sdq.testing.transport import (
    LIMITS,
    Handler,
    ScriptedPeer,
    ScriptedServer,
    draws,
    hits,
    pictures_of,
    refuses,
    stays_silent,
)

DRAFT = SpecDraft(prompt="a red circle")


@asynccontextmanager
async def talking(
    handler: Handler, *, limits: Limits = LIMITS
) -> AsyncIterator[tuple[ScriptedServer, Client]]:
    async with (
        ScriptedServer(handler, limits=limits) as server,
        await Client.connect(server.address) as client,
    ):
        yield server, client


async def cancelled_on(server: ScriptedServer) -> Cancel:
    await server.heard_enough(lambda: bool(server.heard_of(Cancel)))
    cancel = server.heard_of(Cancel)[0]
    assert isinstance(cancel, Cancel)
    return cancel


async def test_news_of_a_drawing() -> None:
    async with talking(draws(steps=2, step_seconds=0.01)) as (_, client):
        news = [item async for item in client.watch(DRAFT, count=2)]
    assert isinstance(news[0], Accepted)
    assert {item.index for item in news if isinstance(item, Progress)} == {0, 1}
    pictures = [item for item in news if isinstance(item, Picture)]
    assert [item.index for item in pictures] == [0, 1]
    assert pictures[0].image.startswith(b"\x89PNG")
    assert news[-1] is pictures[-1]


async def test_the_simple_way_for_scripts() -> None:
    async with talking(hits()) as (server, client):
        pictures = [item async for item in client.pictures("a red circle", count=3, seed=5)]
    assert [item.spec.seed for item in pictures] == [5, 6, 7]
    assert {item.origin for item in pictures} == {Origin.HIT}
    assert not server.heard_of(Cancel)


async def test_one_picture() -> None:
    async with talking(draws(steps=2, step_seconds=0.001)) as (server, client):
        picture = await client.generate("a red circle", index=2, seed=5, cache="refresh")
    assert (picture.index, picture.spec.seed, picture.origin) == (2, 7, "made")
    assert picture.image.size == (picture.spec.width, picture.spec.height)
    (request,) = server.heard_of(Generate)
    assert isinstance(request, Generate)
    assert (request.count, request.first_index, request.cache) == (1, 2, "refresh")


@pytest.mark.parametrize("many", [False, True])
async def test_a_deadline_cancels_the_request(many: bool) -> None:
    async with talking(stays_silent()) as (server, client):
        pictures = client.pictures("a red circle", count=2, timeout_seconds=0.05)
        asked = anext(pictures) if many else client.generate("a circle", timeout_seconds=0.05)
        with pytest.raises(DeadlinePassed, match=r"after 0\.05 s"):
            await asked
        await cancelled_on(server)


async def test_many_requests_at_once_on_one_connection() -> None:
    async def collect(client: Client, number: int) -> str:
        async for picture in client.pictures(f"picture {number}"):
            return picture.spec.prompt
        return ""

    async with talking(draws(steps=2, step_seconds=0.001)) as (server, client):
        prompts = await asyncio.gather(*(collect(client, number) for number in range(50)))
    assert prompts == [f"picture {number}" for number in range(50)]
    assert server.connections == 1


async def test_leaving_early_cancels_the_request() -> None:
    async with talking(draws(steps=1_000, step_seconds=0.01)) as (server, client):
        async with aclosing(client.watch(DRAFT)) as news:
            async for item in news:
                if isinstance(item, Progress):
                    break
        assert len(server.heard_of(Cancel)) == 1
        request = server.heard_of(Generate)[0]
    assert isinstance(request, Generate)
    assert (await cancelled_on(server)).target == request.request_id


async def test_cancelling_the_task_cancels_the_request() -> None:
    async with talking(stays_silent()) as (server, client):
        waiting = asyncio.create_task(anext(client.pictures("a red circle")))
        await server.heard_enough(lambda: bool(server.heard_of(Generate)))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await cancelled_on(server)


async def test_a_finished_request_is_not_cancelled() -> None:
    async with talking(hits()) as (server, client):
        async with aclosing(client.watch(DRAFT)) as news:
            await anext(news)
        assert [item async for item in client.pictures("another")]
    assert not server.heard_of(Cancel)


async def test_a_refusal_is_raised_as_its_class() -> None:
    async with talking(refuses("no_worker", "nobody holds 'shapes'", "start one")) as (
        server,
        client,
    ):
        with pytest.raises(NobodyCanDoIt, match="nobody holds") as caught:
            [item async for item in client.watch(DRAFT, wait=False)]
        assert caught.value.hint == "start one"
    assert not server.heard_of(Cancel)
    request = server.heard_of(Generate)[0]
    assert isinstance(request, Generate)
    assert request.wait is False


async def test_a_failed_picture() -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        first, _ = pictures_of(message)
        peer.send(first)
        peer.send(Failure(message.request_id, 1, 0, "generation_failed", "out of memory"))

    async with talking(handle) as (_, client):
        news = [item async for item in client.watch(DRAFT, count=2)]
        assert [type(item) for item in news] == [Picture, Failure]
        with pytest.raises(GenerationFailed, match="out of memory"):
            [item async for item in client.pictures("x", count=2)]


@pytest.mark.parametrize(
    ("draft", "count", "error"),
    [
        (SpecDraft(prompt=" "), 1, InvalidSpec),
        (SpecDraft(prompt="x" * 2_001), 1, InvalidSpec),
        (SpecDraft(prompt="x", width=65), 1, InvalidSpec),
        (DRAFT, 101, UsageError),
    ],
)
async def test_what_is_refused_before_it_is_sent(
    draft: SpecDraft, count: int, error: type[Exception]
) -> None:
    async with talking(hits()) as (server, client):
        with pytest.raises(error):
            [item async for item in client.watch(draft, count=count)]
    assert not server.heard_of(Generate)


@pytest.mark.parametrize("wrong", [{"cache": "maybe"}, {"priority": "urgent"}, {"count": 0}])
async def test_words_that_mean_nothing(wrong: dict[str, Any]) -> None:
    async with talking(hits()) as (server, client):
        with pytest.raises(UsageError) as caught:
            await anext(client.pictures("x", **wrong))
        assert caught.value.hint
        with pytest.raises(UsageError):
            await client.submit("x", **wrong)
    assert not server.heard_of(Generate)


async def test_the_limit_of_requests_in_flight() -> None:
    limits = msgspec.structs.replace(LIMITS, max_requests_in_flight=2)
    async with (
        talking(stays_silent(), limits=limits) as (_, client),
        aclosing(client.watch(DRAFT)) as one,
        aclosing(client.watch(DRAFT)) as two,
    ):
        await anext(one)
        await anext(two)
        with pytest.raises(ServerBusy, match="2 requests"):
            await client.status()


async def test_the_other_requests() -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, ListModels):
            peer.send(Models(message.request_id, ()))
        elif isinstance(message, FindPictures):
            assert (message.words, message.limit) == ("red", 7)
            peer.send(FoundPictures(message.request_id, ()))
        elif isinstance(message, FetchPicture):
            picture = pictures_of(Generate(message.request_id, DRAFT))[0]
            peer.send(picture)
        elif isinstance(message, RemovePictures):
            peer.send(Removed(message.request_id, len(message.keys), 10))
        elif isinstance(message, PruneLibrary):
            peer.send(Removed(message.request_id, 0, 0))

    async with talking(handle) as (_, client):
        assert await client.models() == ()
        assert await client.find("red", 7) == ()
        assert (await client.fetch("abcd")).spec.prompt == DRAFT.prompt
        assert (await client.remove(["abcd", "ef01"])).pictures == 2
        assert (await client.prune()).freed_bytes == 0


async def test_an_answer_of_the_wrong_kind() -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        peer.send(Models(getattr(message, "request_id", 0), ()))

    async with talking(handle) as (_, client):
        with pytest.raises(ProtocolError, match="answered with Models"):
            await client.status()
        with pytest.raises(ProtocolError, match="answered with Models"):
            [item async for item in client.watch(DRAFT)]
