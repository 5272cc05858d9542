"""A commit that is interrupted: what is not kept is drawn for nobody, what is kept goes on."""

import asyncio
from pathlib import Path

import pytest

from sdq.protocol.messages import CachePolicy, Generate
from sdq.protocol.states import JobState
from sdq.server.queue.subscriptions import Request
from sdq.spec import SpecDraft
from sdq.testing.rig import ListeningPeer, open_rig


@pytest.mark.parametrize(
    ("cache", "queued"), [(CachePolicy.OFF, 0), (CachePolicy.PREFER, 2), (CachePolicy.REFRESH, 2)]
)
async def test_cancelled_during_the_commit(tmp_path: Path, cache: CachePolicy, queued: int):
    async with open_rig(tmp_path) as rig:
        original, is_added = rig.table.add, asyncio.Event()

        async def add(jobs, **limits):
            added = await original(jobs, **limits)
            is_added.set()
            await asyncio.sleep(0.02)  # committed, and the caller does not know it yet
            return added

        rig.table.add = add  # type: ignore[method-assign]
        request = Request(1, ListeningPeer(), remaining=2)
        message = Generate(1, SpecDraft("a cat"), count=2, cache=cache)
        task = asyncio.create_task(rig.generation.generate(message, request))
        await is_added.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert (await rig.table.counts())[JobState.QUEUED] == queued
