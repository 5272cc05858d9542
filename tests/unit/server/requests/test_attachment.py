"""Waiting for jobs by their ids: before, at and after their end."""

from pathlib import Path

import pytest

from sdq.errors import StackError
from sdq.protocol.job_messages import Attach, CancelJobs
from sdq.protocol.messages import (
    Accepted,
    CachePolicy,
    Failure,
    Generate,
    Origin,
    Picture,
    Progress,
)
from sdq.protocol.states import JobState
from sdq.server.queue.subscriptions import Request
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, broke, drawn
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

CAT, DOG = SpecDraft("a cat"), SpecDraft("a dog")
ME, YOU = "10.0.0.1", "10.0.0.2"


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def test_whoever_attaches_hears_of_the_job_and_gets_the_picture(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    peer = ListeningPeer(YOU)
    request = await rig.attach(peer, job_id, request_id=7)
    (accepted,) = peer.all(Accepted)
    (planned,) = accepted.pictures
    assert (accepted.request_id, planned.index, planned.job_id) == (7, 0, job_id)
    assert (planned.cache, planned.spec.prompt) == (Origin.JOINED, "a cat")
    assert [news.state for news in peer.all(Progress)] == [JobState.QUEUED]
    assert not request.is_done
    await rig.draw_all()
    (picture,) = peer.all(Picture)
    assert (picture.index, picture.remaining, picture.cache) == (0, 0, Origin.JOINED)
    assert picture.image == png()
    assert request.is_done


async def test_after_the_end_the_picture_comes_from_the_library_at_once(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.draw_all()
    peer = ListeningPeer(YOU)
    request = await rig.attach(peer, job_id)
    assert [type(message) for message in peer.told] == [Picture]
    assert (peer.all(Picture)[0].cache, request.is_done) == (Origin.HIT, True)


async def test_each_job_gets_its_own_answer_at_its_own_place(rig: Rig):
    (done,) = await rig.submit(CAT, ME)
    await rig.draw_all()
    (failed,) = await rig.submit(DOG, ME)
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(broke(rig.dispatcher.take(), "the model is broken", retryable=False))
    (cancelled,) = await rig.submit(SpecDraft("a bird"), ME)
    await rig.cancelling.cancel_jobs(CancelJobs(1, (cancelled,)), ME)
    (waiting,) = await rig.submit(SpecDraft("a fish"), ME)
    peer = ListeningPeer(YOU)
    await rig.attach(peer, failed, waiting, done, cancelled, "nobodyknows")
    assert [one.index for one in peer.all(Accepted)[0].pictures] == [1, 2]
    assert [one.cache for one in peer.all(Accepted)[0].pictures] == [Origin.JOINED, Origin.HIT]
    assert [one.index for one in peer.all(Picture)] == [2]
    failures = {one.index: (one.code, one.message) for one in peer.all(Failure)}
    assert failures[0] == ("generation_failed", "the model is broken")
    assert failures[3] == ("cancelled", "the job was cancelled")
    assert failures[4] == ("unknown_job", "the server knows no job nobodyknows")
    assert all(one.hint for one in peer.all(Failure))
    await rig.draw_all()
    assert [(one.index, one.remaining) for one in peer.all(Picture)][1:] == [(1, 0)]


async def test_a_picture_too_large_for_the_device_comes_with_advice(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.table.move(
        job_id, JobState.FAILED, error_code="out_of_memory", error_message="no room on cuda:0"
    )
    peer = ListeningPeer(YOU)
    await rig.attach(peer, job_id)
    (failure,) = peer.all(Failure)
    assert (failure.code, failure.message) == ("out_of_memory", "no room on cuda:0")
    assert "smaller picture" in failure.hint


async def test_the_same_job_twice_and_in_several_requests(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    peer = ListeningPeer(YOU)
    requests = [await rig.attach(peer, job_id, job_id, request_id=n) for n in (1, 2)]
    assert len(peer.all(Accepted)[0].pictures) == 2
    await rig.draw_all()
    found = sorted((one.request_id, one.index) for one in peer.all(Picture))
    assert found == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(request.is_done for request in requests)
    await rig.attach(peer, job_id, job_id, request_id=3)
    assert [one.remaining for one in peer.all(Picture)[4:]] == [1, 0]


async def test_a_picture_that_is_no_longer_kept_is_said(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.draw_all()
    job = await rig.table.get(job_id)
    assert job is not None
    await rig.library.remove([job.key])
    peer = ListeningPeer(YOU)
    await rig.attach(peer, job_id)
    (failure,) = peer.all(Failure)
    assert (failure.code, failure.remaining) == ("not_in_library", 0)
    assert "sdq generate" in failure.hint


async def test_a_file_that_cannot_be_read_costs_only_its_own_picture(rig: Rig):
    first, second = await rig.submit(CAT, ME, count=2)
    await rig.draw_all()
    original, tries = rig.library.get, []

    async def get(key: str):
        tries.append(key)
        if len(tries) == 1:
            raise StackError("the disk does not answer")
        return await original(key)

    rig.library.get = get  # type: ignore[method-assign]
    peer = ListeningPeer(YOU)
    request = await rig.attach(peer, first, second)
    assert [(one.index, one.message) for one in peer.all(Failure)] == [
        (0, "the disk does not answer")
    ]
    assert [one.index for one in peer.all(Picture)] == [1]
    assert request.is_done


@pytest.mark.parametrize("end", ["drawn", "failed", "cancelled"])
async def test_an_end_between_the_row_and_the_subscription_is_not_missed(rig: Rig, end: str):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    original, reads = rig.table.get_many, []

    async def get_many(job_ids):
        found = await original(job_ids)
        reads.append(job_ids)
        if len(reads) > 1:
            return found
        if end == "drawn":
            await rig.outcomes.apply(drawn(job, png()))
        elif end == "failed":
            await rig.outcomes.apply(broke(job, "no luck", retryable=False))
        else:
            await rig.table.move(job_id, JobState.CANCELLED)
        return found

    rig.table.get_many = get_many  # type: ignore[method-assign]
    peer = ListeningPeer(YOU)
    request = await rig.attach(peer, job_id)
    assert request.is_done
    assert len(rig.subscriptions) == 0
    if end == "drawn":
        assert [one.image for one in peer.all(Picture)] == [png()]
    else:
        expected = {"failed": "generation_failed", "cancelled": "cancelled"}[end]
        assert [one.code for one in peer.all(Failure)] == [expected]


async def test_leaving_and_ending_it_stops_no_job(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.cancelling.leave(await rig.attach(ListeningPeer(YOU), job_id))
    ended = await rig.attach(ListeningPeer(YOU), job_id)
    assert await rig.cancelling.cancel(ended) == (0, 0)
    await rig.draw_all()
    assert await rig.state_of(job_id) is JobState.SUCCEEDED


async def test_what_is_not_kept_stops_when_the_last_one_who_waits_is_gone(rig: Rig):
    mine, yours = ListeningPeer(ME), ListeningPeer(YOU)
    request = await rig.generate(mine, Generate(1, CAT, cache=CachePolicy.OFF))
    job_id = mine.all(Accepted)[0].pictures[0].job_id
    assert job_id is not None
    attached = await rig.attach(yours, job_id)
    await rig.cancelling.leave(request)
    assert await rig.state_of(job_id) is JobState.QUEUED
    await rig.cancelling.leave(attached)
    assert await rig.state_of(job_id) is JobState.CANCELLED
    late = ListeningPeer(YOU)
    await rig.attach(late, job_id)
    # A client that reconnects asks anew for a job that was cancelled before any progress.
    assert [type(message) for message in late.told] == [Failure]


async def test_what_is_not_kept_reaches_all_who_wait_and_nobody_later(rig: Rig):
    mine, yours = ListeningPeer(ME), ListeningPeer(YOU)
    await rig.generate(mine, Generate(1, CAT, cache=CachePolicy.OFF))
    job_id = mine.all(Accepted)[0].pictures[0].job_id
    assert job_id is not None
    await rig.attach(yours, job_id)
    await rig.draw_all()
    assert [len(peer.all(Picture)) for peer in (mine, yours)] == [1, 1]
    late = ListeningPeer(YOU)
    await rig.attach(late, job_id)
    (failure,) = late.all(Failure)
    assert (failure.code, "cache off" in failure.message) == ("not_in_library", True)


async def test_ended_while_a_picture_is_read_it_says_nothing_more(rig: Rig):
    job_ids = await rig.submit(CAT, ME, count=2)
    await rig.draw_all()
    peer = ListeningPeer(YOU)
    request = Request(1, peer, remaining=2, is_attached=True)
    original, reads = rig.library.get, []

    async def get(key: str):
        reads.append(key)
        found = await original(key)
        await rig.cancelling.cancel(request)
        return found

    rig.library.get = get  # type: ignore[method-assign]
    await rig.attachment.attach(Attach(1, tuple(job_ids)), request)
    assert (peer.told, len(reads)) == ([], 1)


async def test_after_a_restart_the_jobs_are_there_to_attach_to(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        job_ids = await rig.submit(CAT, ME, count=3)
        await rig.scheduler.dispatch()
        await rig.outcomes.apply(begun(rig.dispatcher.take()))
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        peer = ListeningPeer(YOU)
        await rig.attach(peer, *job_ids)
        states = {news.index: news.state for news in peer.all(Progress)}
        assert states[0] is JobState.RUNNING
        for job in await rig.table.in_state([JobState.RUNNING, JobState.DISPATCHED]):
            await rig.outcomes.apply(drawn(job, png()))
        await rig.draw_all()
        assert sorted(one.index for one in peer.all(Picture)) == [0, 1, 2]
