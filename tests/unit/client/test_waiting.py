"""A request that waits while its server dies and comes back: every picture once."""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from sdq import Client
from sdq.client.news import Reconnected, Reconnecting
from sdq.errors import ConnectionFailed, NotAllowed, ProtocolError
from sdq.protocol.job_messages import Attach
from sdq.protocol.messages import (
    Cancel,
    ClientMessage,
    ErrorReply,
    Failure,
    Generate,
    Origin,
    Picture,
    Progress,
)
from sdq.protocol.states import JobState
from sdq.spec import SpecDraft
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import (
    ScriptedPeer,
    ScriptedServer,
    accepted,
    pictures_of,
    resolved,
    stays_silent,
)

DRAFT = SpecDraft(prompt="a red circle")


async def heard(server: ScriptedServer, kind: type[ClientMessage], count: int = 1) -> None:
    await server.heard_enough(lambda: len(server.heard_of(kind)) >= count, timeout_seconds=10)


async def test_a_server_that_dies_and_comes_back(served: Any, read: Any) -> None:
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT, count=3, first_index=5))
        await reader.until(lambda: len(reader.of(Progress)) == 3)
        table.finish("job0")
        await reader.until(lambda: len(reader.of(Picture)) == 1)
        await server.stop()
        await reader.until(lambda: bool(reader.of(Reconnecting)))
        table.finish("job1")
        await server.start()
        await reader.until(lambda: bool(reader.of(Reconnected)))
        await heard(server, Attach)
        table.finish("job2")
        pictures = await reader.end()
        (attach,) = server.heard_of(Attach)
    assert isinstance(attach, Attach)
    assert attach.job_ids == ("job1", "job2")
    assert [item.index for item in pictures] == [5, 6, 7]
    assert [item.spec for item in pictures] == [resolved(DRAFT, index) for index in (5, 6, 7)]
    assert [item.remaining for item in pictures] == [2, 1, 0]
    assert {item.cache for item in pictures} == {Origin.MADE}  # though it is attached by then
    assert set(table.drawn.values()) == {1}
    assert len(server.heard_of(Generate)) == 1
    assert not server.heard_of(Cancel)
    first, last = reader.of(Reconnecting)[0], reader.news[-1]
    assert isinstance(first, Reconnecting)
    assert "lost the server" in first.reason
    assert last is pictures[-1]


@pytest.mark.parametrize("code", ["leaving", "busy", "protocol"])
async def test_a_server_that_says_why_it_hangs_up(served: Any, read: Any, code: str) -> None:
    """``protocol``: it heard nothing for too long, as of a laptop that slept."""
    word = ErrorReply(None, code, "the server is started again")
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop(word=word)
        await server.start()
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        table.finish()
        assert len(await reader.end()) == 1
    (news,) = reader.of(Reconnecting)
    assert isinstance(news, Reconnecting)
    assert news.reason.endswith("the server is started again")


async def test_what_it_forgot_is_asked_for_again(served: Any, read: Any) -> None:
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT, count=2, wait=False))
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        await server.stop()
        table.forget()
        await server.start()
        await heard(server, Generate, 3)
        await reader.until(lambda: len(reader.of(Progress)) == 4)
        table.finish()
        pictures = await reader.end()
        again = server.heard_of(Generate)[1:]
    assert sorted(item.index for item in pictures) == [0, 1]
    assert all(isinstance(item, Generate) and item.wait for item in again)  # accepted once
    assert not reader.of(Failure)


async def test_refresh_is_not_drawn_twice(served: Any, read: Any) -> None:
    async with served() as (server, table, client):
        table.library.add(pictures_of(Generate(0, DRAFT))[0].key)
        reader = read(client.watch(DRAFT, cache="refresh"))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop()
        table.finish()
        await server.start()
        assert len(await reader.end()) == 1
    assert list(table.drawn.values()) == [1]
    assert len(server.heard_of(Generate)) == 1


async def test_a_job_that_was_stopped_while_the_server_was_gone_is_asked_for_again(
    served: Any, read: Any
) -> None:
    """With ``cache`` off, a server stops the job of a client that vanishes."""
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT, cache="off"))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop()
        table.finish(state=JobState.CANCELLED)
        await server.start()
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        table.finish()
        assert len(await reader.end()) == 1


async def test_a_picture_that_was_drawn_and_not_kept_is_asked_for_again(read: Any) -> None:
    table = ScriptedJobs()

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, Attach):
            peer.send(Failure(message.request_id, 0, 0, "not_in_library", "it was not kept"))
        else:
            await table.handle(peer, message)

    async with (
        ScriptedServer(handle) as server,
        await Client.connect(server.address, reconnect_seconds=10) as client,
    ):
        reader = read(client.watch(DRAFT, cache="off"))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop()
        table.finish()
        await server.start()
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        table.finish()
        assert len(await reader.end()) == 1


async def test_a_job_that_is_cancelled_after_the_return_stays_cancelled(
    served: Any, read: Any
) -> None:
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop()
        await server.start()
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        table.finish(state=JobState.CANCELLED)
        assert await reader.end() == []
    (failure,) = reader.of(Failure)
    assert isinstance(failure, Failure)
    assert failure.code == "cancelled"


async def test_hits_that_had_not_come_are_asked_for_in_runs(read: Any) -> None:
    came: list[ScriptedPeer] = []

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        came.append(peer)
        if len(came) == 1:  # indices 2 and 5 of 0 to 6, then it dies
            whole = pictures_of(message)
            for index in (2, 5):
                peer.send(whole[index])
            await peer.stream.drained()
            peer.hang_up()
            return
        for picture in pictures_of(message):
            peer.send(picture)

    async with (
        ScriptedServer(handle) as server,
        await Client.connect(server.address, reconnect_seconds=10) as client,
    ):
        reader = read(client.watch(DRAFT, count=7))
        pictures = await reader.end()
        runs = [
            (item.first_index, item.count)
            for item in server.heard_of(Generate)[1:]
            if isinstance(item, Generate)
        ]
    assert sorted(runs) == [(0, 2), (3, 2), (6, 1)]
    assert sorted(item.index for item in pictures) == list(range(7))
    assert all(item.spec == resolved(DRAFT, item.index) for item in pictures)


async def test_it_never_comes_back(served: Any, read: Any) -> None:
    async with served(reconnect_seconds=0.4) as (server, _, client):
        reader = read(client.watch(DRAFT, count=2))
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        await server.stop()
        with pytest.raises(ConnectionFailed, match=r"did not come back within 0\.4 s") as caught:
            await reader.end()
    assert "sdq attach job0 job1" in caught.value.hint
    assert "same command again" in caught.value.hint


async def test_no_reconnecting_where_it_is_switched_off(served: Any, read: Any) -> None:
    async with served(reconnect_seconds=0) as (server, _, client):
        reader = read(client.watch(DRAFT))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop()
        with pytest.raises(ConnectionFailed, match="lost the server") as caught:
            await reader.end()
    assert not reader.of(Reconnecting)
    assert "sdq attach job0" in caught.value.hint


async def test_what_cannot_pass_is_not_waited_for(served: Any, read: Any) -> None:
    async with served() as (server, _, client):
        reader = read(client.watch(DRAFT))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop(word=ErrorReply(None, "not_allowed", "your token was withdrawn"))
        with pytest.raises(NotAllowed, match="token"):
            await reader.end()


async def test_attaching(served: Any, read: Any) -> None:
    async with served() as (server, table, client):
        submitted = await client.submit(DRAFT, count=3)
        ids = [item.job_id or "" for item in submitted.pictures]
        reader = read(client.attach([ids[2], "gone", ids[0]]))
        await heard(server, Attach)
        table.finish(ids[2])
        await reader.until(lambda: bool(reader.of(Picture)))
        await server.stop()
        await server.start()
        await heard(server, Attach, 2)
        table.finish()
        pictures = await reader.end()
    assert [item.index for item in pictures] == [0, 2]
    (failure,) = reader.of(Failure)
    assert isinstance(failure, Failure)
    assert (failure.index, failure.code) == (1, "unknown_job")
    assert not server.heard_of(Generate)


@pytest.mark.parametrize("preview", [True, False])
async def test_the_wish_to_see_pictures_grow_outlives_the_server(
    served: Any, read: Any, preview: bool
) -> None:
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT, preview=preview))
        await reader.until(lambda: bool(reader.of(Progress)))
        watcher = read(client.attach(["job0"], preview=preview))
        await watcher.until(lambda: bool(watcher.of(Progress)))
        await server.stop()
        await server.start()
        await heard(server, Attach, 3)
        await server.stop()
        table.forget()  # the order itself is sent again too
        await server.start()
        await heard(server, Generate, 2)
        await reader.until(lambda: bool(table.jobs))
        table.finish()
        await reader.end()
        await watcher.end()
    asked = [*server.heard_of(Generate), *server.heard_of(Attach)]
    assert [message.preview for message in asked] == [preview] * 7


async def test_an_iterator_that_nobody_reads_holds_nothing_up() -> None:
    large = b"\x89PNG" + bytes(5 * 1024 * 1024)
    sent = asyncio.Event()

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        for picture in pictures_of(message):
            image = large if message.count > 1 else picture.image
            peer.send(msgspec.structs.replace(picture, image=image))
            await peer.stream.drained()
        sent.set()

    async with (
        ScriptedServer(handle) as server,
        await Client.connect(server.address) as client,
        aclosing(client.watch(DRAFT, count=20)) as unread,  # 100 MiB
    ):
        await anext(unread)
        async with asyncio.timeout(20):
            await sent.wait()
            assert [item async for item in client.pictures("another")]
        rest = [item async for item in unread]
    assert len(rest) == 19
    assert all(isinstance(item, Picture) and item.image == large for item in rest)


async def test_a_request_that_ends_before_its_last_picture() -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        peer.send(pictures_of(message)[-1])  # remaining is 0

    async with (
        ScriptedServer(handle) as server,
        await Client.connect(server.address) as client,
    ):
        with pytest.raises(ProtocolError, match="before its last picture"):
            [item async for item in client.watch(DRAFT, count=2)]


async def test_closing_the_client_ends_who_waits_and_who_reconnects(read: Any) -> None:
    async with ScriptedServer(stays_silent()) as server:
        client = await Client.connect(server.address)
        reader = read(client.watch(DRAFT))
        await reader.until(lambda: bool(reader.news))
        await server.stop()
        await reader.until(lambda: bool(reader.of(Reconnecting)))
        await client.close()
        with pytest.raises(ConnectionFailed):
            await reader.end()
