"""Handing in without waiting: every picture gets a job, and nobody is subscribed."""

from pathlib import Path

import pytest

from sdq.errors import NotInLibrary, ServerBusy, UsageError
from sdq.protocol.job_messages import Submit
from sdq.protocol.messages import CachePolicy, Generate, Origin, Picture
from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.server.queue.job import RANKS
from sdq.spec import SpecDraft
from sdq.testing.rig import ListeningPeer, Rig, open_rig

CAT = SpecDraft("a cat")
ME = "10.0.0.1"


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def test_every_picture_gets_a_job_also_those_in_the_library(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT, count=2))
    await rig.draw_all()
    submitted = await rig.submission.submit(Submit(9, CAT, count=4), ME)
    assert submitted.request_id == 9
    assert [one.index for one in submitted.pictures] == [0, 1, 2, 3]
    assert [one.cache for one in submitted.pictures] == [Origin.HIT] * 2 + [Origin.MADE] * 2
    states = [await rig.state_of(one.job_id) for one in submitted.pictures if one.job_id]
    assert states == [JobState.SUCCEEDED] * 2 + [JobState.QUEUED] * 2
    assert len(rig.subscriptions) == 0
    await rig.draw_all()
    assert (await rig.library.stats()).pictures == 4


async def test_what_somebody_else_waits_for_is_joined(rig: Rig):
    peer = ListeningPeer()
    await rig.generate(peer, Generate(1, CAT))
    submitted = await rig.submission.submit(Submit(1, CAT), ME)
    assert [one.cache for one in submitted.pictures] == [Origin.JOINED]
    await rig.draw_all()
    assert len(peer.all(Picture)) == 1


async def test_what_is_not_kept_could_be_given_to_nobody(rig: Rig):
    with pytest.raises(UsageError) as refused:
        await rig.submission.submit(Submit(1, CAT, cache=CachePolicy.OFF), ME)
    assert "sdq generate" in refused.value.hint
    assert sum((await rig.table.counts()).values()) == 0


async def test_cache_only_takes_all_or_nothing(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT, count=2))
    await rig.draw_all()
    before = await rig.table.counts()
    with pytest.raises(NotInLibrary, match="1 of 3 pictures"):
        await rig.submission.submit(Submit(1, CAT, count=3, cache=CachePolicy.ONLY), ME)
    assert await rig.table.counts() == before
    submitted = await rig.submission.submit(Submit(1, CAT, count=2, cache=CachePolicy.ONLY), ME)
    assert [one.cache for one in submitted.pictures] == [Origin.HIT] * 2


async def test_cache_refresh_draws_what_is_there(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT))
    await rig.draw_all()
    submitted = await rig.submission.submit(Submit(1, CAT, cache=CachePolicy.REFRESH), ME)
    assert [one.cache for one in submitted.pictures] == [Origin.MADE]
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 1


async def test_the_limit_counts_what_would_be_new(tmp_path: Path):
    async with open_rig(tmp_path, max_queued_jobs=3) as rig:
        await rig.submit(CAT, count=3)
        assert len(await rig.submit(CAT, count=3)) == 3
        with pytest.raises(ServerBusy, match="3 pictures are waiting"):
            await rig.submit(CAT, count=4)


async def test_the_priority_orders_ones_own_jobs(rig: Rig):
    low = await rig.submission.submit(Submit(1, CAT, priority=Priority.LOW), ME)
    high = await rig.submission.submit(Submit(1, SpecDraft("a dog"), priority=Priority.HIGH), ME)
    assert RANKS[Priority.HIGH] < RANKS[Priority.LOW]
    assert await rig.turns.line("shapes", ME, 9) == [
        one.job_id for submitted in (high, low) for one in submitted.pictures
    ]


async def test_a_picture_that_came_after_the_look_into_the_library_is_not_drawn_again(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT))
    original = rig.table.add

    async def finish_and_add(jobs, **limits):
        await rig.draw_all()
        return await original(jobs, **limits)

    rig.table.add = finish_and_add  # type: ignore[method-assign]
    (job_id,) = await rig.submit(CAT, ME)
    assert await rig.state_of(job_id) is JobState.SUCCEEDED
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []
    peer = ListeningPeer("10.0.0.2")
    await rig.attach(peer, job_id)
    assert len(peer.all(Picture)) == 1
