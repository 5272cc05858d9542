"""Draining over the wire's words; the other messages have modules of their own."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdq.errors import UnknownWorker
from sdq.protocol.job_messages import CancelJobs, Draining, DrainWorker, JobsCancelled
from sdq.protocol.messages import Cancel, CancelReply, Generate, Picture
from sdq.server.queue.dispatch import RedisGone
from sdq.server.queue.subscriptions import Request
from sdq.server.requests.job_requests import JobRequests
from sdq.spec import SpecDraft
from sdq.testing.rig import ListeningPeer, Rig, open_rig


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        yield rig


class Asking(ListeningPeer):
    """As much of a session as requests need."""

    def __init__(self, identity: str) -> None:
        super().__init__(identity)
        self.requests: dict[int, Request] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def finished(self, request_id: int) -> None:
        if request_id in self.tasks:
            await asyncio.wait({self.tasks[request_id]})


NOBODY: Any = SimpleNamespace(identity="10.0.0.1", requests={})


async def test_a_worker_is_told_to_drain_and_what_it_has_in_hand_is_counted(rig: Rig):
    rig.bring_worker("gpu-1", active=("a", "b"))
    reply = await JobRequests(rig).answer(DrainWorker(4, "gpu-1"), NOBODY)
    assert reply == Draining(4, "gpu-1", 2)
    assert "gpu-1" in rig.dispatcher.drained


async def test_a_worker_that_is_not_online_is_named_beside_those_that_are(rig: Rig):
    with pytest.raises(UnknownWorker, match="'gpu-9'") as refused:
        await JobRequests(rig).answer(DrainWorker(4, "gpu-9"), NOBODY)
    assert refused.value.hint == "no worker is online at all"
    rig.bring_worker("gpu-1")
    with pytest.raises(UnknownWorker) as refused:
        await JobRequests(rig).answer(DrainWorker(4, "gpu-9"), NOBODY)
    assert refused.value.hint == "online: gpu-1"


async def test_redis_that_is_away_is_said(rig: Rig):
    rig.bring_worker("gpu-1")
    rig.dispatcher.is_away = True
    with pytest.raises(RedisGone):
        await JobRequests(rig).answer(DrainWorker(4, "gpu-1"), NOBODY)


async def test_what_is_cancelled_says_no_more(rig: Rig):
    rig.bring_worker()
    session: Any = Asking("10.0.0.1")
    requests = JobRequests(rig)
    await requests.wait(Generate(1, SpecDraft("a cat")), session)
    assert await requests.answer(Cancel(2, target=1), session) == CancelReply(2, 1, 0)
    assert await requests.answer(Cancel(3, target=1), session) == CancelReply(3, 0, 0)
    assert await requests.answer(CancelJobs(4, all_mine=True), session) == JobsCancelled(4, 0)
    await rig.draw_all()
    assert session.all(Picture) == []


async def test_jobs_that_were_being_committed_are_counted_too(rig: Rig):
    session: Any = Asking("10.0.0.1")
    requests = JobRequests(rig)
    original, committed = rig.table.add, asyncio.Event()

    async def add(jobs, **limits):
        added = await original(jobs, **limits)
        committed.set()
        await asyncio.sleep(0.02)
        return added

    rig.table.add = add  # type: ignore[method-assign]
    message = Generate(1, SpecDraft("a cat"), count=3)
    session.tasks[1] = asyncio.create_task(requests.wait(message, session))
    await committed.wait()
    assert await requests.answer(Cancel(2, target=1), session) == CancelReply(2, 3, 0)
    assert session.told == []
