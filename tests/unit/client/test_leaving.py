"""Taking a request back: what is sent, what is counted, and how long it may take."""

import asyncio
from typing import Any

import pytest

from sdq.client import leaving
from sdq.client.connection import Line
from sdq.client.leaving import take_back
from sdq.client.news import Reconnecting
from sdq.protocol.job_messages import Attach
from sdq.protocol.messages import Cancel, CancelReply, ClientMessage, Picture, Progress
from sdq.protocol.states import JobState
from sdq.spec import SpecDraft
from sdq.testing.transport import Handler, ScriptedPeer, ScriptedServer

DRAFT = SpecDraft(prompt="a red circle")


async def taken_back(handler: Handler) -> CancelReply | None:
    async with ScriptedServer(handler, answers_cancel=None) as server:
        host, _, port = server.address.rpartition(":")
        line = await Line.open(host, int(port), timeout_seconds=5)
        try:
            return await take_back(line, [7, 8])
        finally:
            assert line.requests_in_flight == 0
            await line.close()
            targets = [item.target for item in server.heard if isinstance(item, Cancel)]
            assert targets == [7, 8]


async def answer(peer: ScriptedPeer, message: ClientMessage) -> None:
    if isinstance(message, Cancel):
        peer.send(CancelReply(message.request_id, cancelled=1, kept=2))


async def test_the_answers_are_counted_together() -> None:
    reply = await taken_back(answer)
    assert reply is not None
    assert (reply.cancelled, reply.kept) == (2, 4)


async def test_a_server_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(peer: ScriptedPeer, message: ClientMessage) -> None:
        """Says nothing."""

    monkeypatch.setattr(leaving, "CANCEL_TIMEOUT_SECONDS", 0.05)
    async with asyncio.timeout(5):
        assert await taken_back(silent) is None


# ------------------------------------------------------------------ leaving a request early


async def left(reader: Any) -> None:
    reader.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader.task


async def test_leaving_early_tells_what_was_kept(served: Any, read: Any) -> None:
    told: list[CancelReply | None] = []
    async with served() as (_, _, client):
        reader = read(client.watch(DRAFT, when_left=told.append))
        await reader.until(lambda: bool(reader.of(Progress)))
        await left(reader)
    (reply,) = told
    assert reply is not None
    assert (reply.cancelled, reply.kept) == (1, 0)


async def test_leaving_after_a_reconnection_takes_back_what_was_lost(
    served: Any, read: Any
) -> None:
    """An attach wants nothing by itself: the server must know that this one goes on for another."""
    told: list[CancelReply | None] = []
    async with served() as (server, table, client):
        reader = read(client.watch(DRAFT, count=2, when_left=told.append))
        await reader.until(lambda: len(reader.of(Progress)) == 2)
        table.finish("job0")
        await reader.until(lambda: bool(reader.of(Picture)))
        await server.stop()
        await server.start()
        await reader.until(lambda: len(reader.of(Progress)) == 3)
        await left(reader)
        (attach,) = server.heard_of(Attach)
        (cancel,) = server.heard_of(Cancel)
    assert attach.resumes
    assert attach.job_ids == ("job1",)
    assert cancel.target == attach.request_id
    assert told[0] is not None


async def test_leaving_while_reconnecting_is_quick_and_says_that_nobody_knows(
    served: Any, read: Any
) -> None:
    told: list[CancelReply | None] = []
    async with served() as (server, _, client):
        reader = read(client.watch(DRAFT, when_left=told.append))
        await reader.until(lambda: bool(reader.of(Progress)))
        await server.stop()
        await reader.until(lambda: bool(reader.of(Reconnecting)))
        async with asyncio.timeout(1):
            await left(reader)
    assert told == [None]


async def test_leaving_an_attach_stops_no_job(served: Any, read: Any) -> None:
    async with served() as (server, table, client):
        await client.submit(DRAFT)
        reader = read(client.attach(["job0"]))
        await reader.until(lambda: bool(reader.of(Progress)))
        await left(reader)
        assert len(server.heard_of(Cancel)) == 1
        assert not server.heard_of(Attach)[0].resumes
        assert table.jobs["job0"].state is JobState.RUNNING
