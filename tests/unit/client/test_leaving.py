"""Taking a request back: what is sent, what is counted, and how long it may take."""

import asyncio

import pytest

from sdq.client import leaving
from sdq.client.connection import Line
from sdq.client.leaving import take_back
from sdq.protocol.job_messages import CancelJobs, JobsCancelled
from sdq.protocol.messages import Cancel, CancelReply, ClientMessage
from sdq.testing.transport import Handler, ScriptedPeer, ScriptedServer


async def taken_back(handler: Handler, *job_ids: str) -> CancelReply | None:
    async with ScriptedServer(handler, answers_cancel=None) as server:
        host, _, port = server.address.rpartition(":")
        line = await Line.open(host, int(port), timeout_seconds=5)
        try:
            return await take_back(line, [7, 8], job_ids)
        finally:
            assert line.requests_in_flight == 0
            await line.close()
            targets = [item.target for item in server.heard if isinstance(item, Cancel)]
            assert targets == [7, 8]


async def answer(peer: ScriptedPeer, message: ClientMessage) -> None:
    if isinstance(message, Cancel):
        peer.send(CancelReply(message.request_id, cancelled=1, kept=2))
    elif isinstance(message, CancelJobs):
        reply = JobsCancelled(message.request_id, cancelled=3, kept=1, ended=5, foreign=1)
        peer.send(reply)


async def test_the_answers_are_counted_together() -> None:
    reply = await taken_back(answer)
    assert reply is not None
    assert (reply.cancelled, reply.kept) == (2, 4)


async def test_what_the_jobs_answer_says_goes_on_is_counted_once() -> None:
    reply = await taken_back(answer, "job1", "job2")
    assert reply is not None
    assert (reply.cancelled, reply.kept) == (5, 2)


async def test_a_server_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(peer: ScriptedPeer, message: ClientMessage) -> None:
        """Says nothing."""

    monkeypatch.setattr(leaving, "CANCEL_TIMEOUT_SECONDS", 0.05)
    async with asyncio.timeout(5):
        assert await taken_back(silent) is None
