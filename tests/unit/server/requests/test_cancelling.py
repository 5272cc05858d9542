"""Taking back: mine and not yours, queued and not running, one request and not the other."""

import asyncio
from pathlib import Path

import pytest

from sdq.protocol.job_messages import CancelJobs
from sdq.protocol.messages import Accepted, CachePolicy, Failure, Generate, Picture
from sdq.protocol.states import JobState
from sdq.server.queue.subscriptions import Request
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, drawn
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

CAT, DOG = SpecDraft("a cat"), SpecDraft("a dog")
ME, YOU = "10.0.0.1", "10.0.0.2"


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def cancel(rig: Rig, identity: str, *job_ids: str, all_mine: bool = False):
    reply = await rig.cancelling.cancel_jobs(CancelJobs(1, job_ids, all_mine), identity)
    return reply.cancelled, reply.kept, reply.ended, reply.foreign, reply.unknown


def stopped(rig: Rig) -> list[str]:
    """The jobs that workers were told to drop; as ids, whatever the dispatcher keeps."""
    return [getattr(job, "job_id", job) for job in rig.dispatcher.stopped]


async def test_cancelling_mine_does_not_cancel_yours(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    yours = ListeningPeer(YOU)
    await rig.generate(yours, Generate(1, CAT))
    assert await cancel(rig, ME, job_id) == (0, 1, 0, 0, ())
    assert await cancel(rig, ME, job_id) == (0, 0, 0, 1, ())
    await rig.draw_all()
    assert len(yours.all(Picture)) == 1


async def test_every_job_is_counted_once_for_what_became_of_it(rig: Rig):
    (done,) = await rig.submit(CAT, ME)
    await rig.draw_all()
    mine, shared = await rig.submit(DOG, ME, count=2)
    (again,) = (await rig.submit(DOG, YOU, count=2))[1:]
    assert again == shared
    (foreign,) = await rig.submit(SpecDraft("a bird"), YOU)
    await rig.wants.withdraw(YOU, [mine])
    ids = (done, mine, shared, foreign, "nobodyknows", mine)
    assert await cancel(rig, ME, *ids) == (1, 1, 1, 1, ("nobodyknows",))
    assert await rig.state_of(mine) is JobState.CANCELLED
    assert await rig.state_of(shared) is JobState.QUEUED


async def test_my_own_waiting_requests_hear_that_i_cancelled_their_jobs(rig: Rig):
    mine, attached, yours = ListeningPeer(ME), ListeningPeer(ME), ListeningPeer(YOU)
    request = await rig.generate(mine, Generate(1, CAT))
    job_id = mine.all(Accepted)[0].pictures[0].job_id
    assert job_id is not None
    await rig.attach(attached, job_id)
    await rig.generate(yours, Generate(1, CAT))
    assert await cancel(rig, ME, job_id) == (0, 1, 0, 0, ())
    assert [one.code for peer in (mine, attached) for one in peer.all(Failure)] == ["cancelled"] * 2
    assert request.is_done
    await rig.draw_all()
    assert mine.all(Picture) == attached.all(Picture) == []
    assert len(yours.all(Picture)) == 1


async def test_a_job_goes_on_for_who_is_attached_to_it_and_is_dispatched(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    yours = ListeningPeer(YOU)
    await rig.attach(yours, job_id)
    assert await cancel(rig, ME, job_id) == (0, 1, 0, 0, ())
    await rig.draw_all()
    assert len(yours.all(Picture)) == 1


async def test_all_of_mine_are_taken_back_however_many(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sdq.server.requests.cancelling.BATCH_JOBS", 4)
    await rig.submit(CAT, ME, count=10)
    await rig.submit(CAT, YOU, count=3)
    (done,) = await rig.submit(DOG, ME)
    await rig.table.move(done, JobState.SUCCEEDED)
    assert await cancel(rig, ME, all_mine=True) == (7, 3, 0, 0, ())
    assert await cancel(rig, ME, all_mine=True) == (0, 0, 0, 0, ())
    counts = await rig.table.counts()
    assert (counts[JobState.QUEUED], counts[JobState.CANCELLED]) == (3, 7)


async def test_a_queued_one_never_touches_a_running_one(rig: Rig):
    running, queued = await rig.submit(CAT, ME, count=2)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    assert job.job_id == running
    await rig.outcomes.apply(begun(job))
    rig.dispatcher.sent.clear()
    await rig.table.take_back([queued])
    rig.dispatcher.stopped.clear()
    assert await cancel(rig, ME, queued) == (1, 0, 0, 0, ())
    assert running not in stopped(rig)
    assert await rig.state_of(running) is JobState.RUNNING


async def test_a_running_one_is_stopped_and_its_late_picture_is_nobodys(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    assert await cancel(rig, ME, job_id) == (1, 0, 0, 0, ())
    assert stopped(rig) == [job_id]
    await rig.outcomes.apply(drawn(job, png()))
    assert await rig.state_of(job_id) is JobState.CANCELLED
    assert (await rig.library.stats()).pictures == 0


async def test_redis_that_is_away_does_not_keep_anybody_from_cancelling(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    await rig.scheduler.dispatch()
    rig.dispatcher.is_away = True
    assert await cancel(rig, ME, job_id) == (1, 0, 0, 0, ())


async def test_cancelled_while_it_is_handed_to_redis(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    original = rig.dispatcher.send

    async def send(jobs):
        assert await cancel(rig, ME, job_id) == (1, 0, 0, 0, ())
        await original(jobs)

    rig.dispatcher.send = send  # type: ignore[method-assign]
    await rig.scheduler.dispatch()
    assert stopped(rig) == [job_id]
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(drawn(job, png()))
    assert await rig.state_of(job_id) is JobState.CANCELLED


async def test_leaving_one_of_two_equal_requests_of_mine_keeps_the_other(rig: Rig):
    first, second = ListeningPeer(ME), ListeningPeer(ME)
    request = await rig.generate(first, Generate(1, CAT))
    other = await rig.generate(second, Generate(1, CAT))
    assert await rig.cancelling.cancel(request) == (0, 1)
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 1
    assert await rig.cancelling.cancel(other) == (1, 0)
    assert len(stopped(rig)) == 1
    assert first.all(Failure) == second.all(Failure) == []


async def test_who_vanished_still_wants_the_picture(rig: Rig):
    request = await rig.generate(ListeningPeer(ME), Generate(1, CAT))
    await rig.cancelling.leave(request)
    again = await rig.generate(ListeningPeer(YOU), Generate(1, CAT))
    assert await rig.cancelling.cancel(again) == (0, 1)
    await rig.draw_all()
    assert (await rig.library.stats()).pictures == 1


async def test_what_came_before_is_neither_cancelled_nor_kept(rig: Rig):
    peer = ListeningPeer(ME)
    request = await rig.generate(peer, Generate(1, CAT, count=3))
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(drawn(rig.dispatcher.take(), png()))
    assert await rig.cancelling.cancel(request) == (2, 0)
    assert len(peer.all(Picture)) == 1


async def test_who_attaches_in_the_moment_of_the_cancel_is_told(rig: Rig):
    (job_id,) = await rig.submit(CAT, ME)
    original = rig.wants.cancel_unwanted
    yours = ListeningPeer(YOU)

    async def cancel_unwanted(job_ids):
        await rig.attach(yours, job_id)
        return await original(job_ids)

    rig.wants.cancel_unwanted = cancel_unwanted  # type: ignore[method-assign]
    assert await cancel(rig, ME, job_id) == (1, 0, 0, 0, ())
    assert [one.code for one in yours.all(Failure)] == ["cancelled"]
    assert len(rig.subscriptions) == 0


async def test_who_asks_in_the_moment_of_the_cancel_gets_the_picture(rig: Rig):
    mine, yours = ListeningPeer(ME), ListeningPeer(YOU)
    request = await rig.generate(mine, Generate(1, CAT))
    original = rig.wants.cancel_unwanted

    async def cancel_unwanted(job_ids):
        await rig.generate(yours, Generate(1, CAT))
        return await original(job_ids)

    rig.wants.cancel_unwanted = cancel_unwanted  # type: ignore[method-assign]
    assert await rig.cancelling.cancel(request) == (0, 1)
    await rig.draw_all()
    assert len(yours.all(Picture)) == 1
    assert mine.all(Picture) == []


@pytest.mark.parametrize("pause", range(12))
async def test_a_client_that_leaves_at_any_moment_leaves_nothing_unkept_behind(
    rig: Rig, pause: int
):
    """As a session does it: the task is cancelled, then the request left."""
    request = Request(1, ListeningPeer(ME), remaining=2)
    message = Generate(1, CAT, count=2, cache=CachePolicy.OFF)
    task = asyncio.create_task(rig.generation.generate(message, request))
    for _ in range(pause):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.wait({task})
    await rig.cancelling.leave(request)
    counts = await rig.table.counts()
    assert counts[JobState.QUEUED] == 0
