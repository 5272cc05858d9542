"""The window, and taking back what workers or Redis lost."""

from pathlib import Path

import pytest

from sdq.protocol.messages import Generate, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.dispatch import RedisGone
from sdq.server.scheduler import BEGIN_TIMEOUT_SECONDS, WINDOW_FACTOR
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, drawn
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

MANY = Generate(1, SpecDraft("a cat"), count=10)
ONE = Generate(1, SpecDraft("a dog"))


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        yield rig


async def counts(rig: Rig) -> dict[JobState, int]:
    return {state: count for state, count in (await rig.table.counts()).items() if count}


async def test_nothing_goes_to_redis_while_nobody_can_do_it(rig: Rig):
    await rig.generate(ListeningPeer(), MANY)
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []
    assert await counts(rig) == {JobState.QUEUED: 10}


async def test_redis_holds_no_more_than_the_window(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), MANY)
    await rig.scheduler.dispatch()
    await rig.scheduler.dispatch()
    window = 2 * WINDOW_FACTOR
    assert len(rig.dispatcher.sent) == window
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == window - 1
    await rig.outcomes.apply(drawn(job, png()))
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == window


async def test_when_redis_is_away_the_jobs_stay_in_the_table(rig: Rig):
    rig.bring_worker()
    rig.dispatcher.is_away = True
    await rig.generate(ListeningPeer(), ONE)
    with pytest.raises(RedisGone):
        await rig.scheduler.dispatch()
    assert await counts(rig) == {JobState.QUEUED: 1}
    with pytest.raises(RedisGone):
        await rig.scheduler.dispatch()
    rig.dispatcher.is_away = False
    await rig.scheduler.dispatch()
    assert [job.attempt for job in rig.dispatcher.sent] == [1]  # no attempt was made before


async def test_an_empty_redis_gets_its_tasks_again(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    rig.dispatcher.sent.clear()
    await rig.scheduler.take_back()
    await rig.scheduler.dispatch()
    assert [job.attempt for job in rig.dispatcher.sent] == [1]


async def test_a_dead_workers_jobs_are_drawn_by_another(rig: Rig):
    rig.bring_worker("first")
    peer = ListeningPeer()
    await rig.generate(peer, ONE)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job, "first"))
    rig.bring_worker("second")
    rig.clock.now += 60
    await rig.scheduler.recover()
    assert "worker first is gone" in peer.all(Progress)[-1].note
    await rig.scheduler.dispatch()
    again = rig.dispatcher.take()
    assert (again.job_id, again.attempt) == (job.job_id, 2)
    await rig.outcomes.apply(drawn(again, png()))
    assert len(peer.all(Picture)) == 1


async def test_a_job_in_living_hands_is_left_alone_however_long_it_takes(rig: Rig):
    rig.bring_worker("first")
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job, "first"))
    rig.clock.now += 3600
    rig.bring_worker("first", active=(job.job_id,))
    await rig.scheduler.recover()
    assert await counts(rig) == {JobState.RUNNING: 1}


async def test_a_worker_that_restarted_has_forgotten_its_job(rig: Rig):
    rig.bring_worker("first")
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(begun(rig.dispatcher.take(), "first"))
    rig.clock.now += 30
    rig.bring_worker("first", active=())
    await rig.scheduler.recover()
    assert await counts(rig) == {JobState.QUEUED: 1}


async def test_a_task_lost_on_its_way_is_sent_again_but_a_waiting_one_is_not(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    rig.clock.now += BEGIN_TIMEOUT_SECONDS + 1
    await rig.scheduler.recover()
    await rig.scheduler.recover()
    assert await counts(rig) == {JobState.DISPATCHED: 1}
    rig.dispatcher.sent.clear()
    await rig.scheduler.recover()
    assert await counts(rig) == {JobState.DISPATCHED: 1}  # perhaps it is just being taken
    await rig.scheduler.recover()
    assert await counts(rig) == {JobState.QUEUED: 1}


async def test_a_task_that_was_lost_among_others_is_sent_again(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), MANY)
    await rig.scheduler.dispatch()
    rig.dispatcher.take()
    rig.clock.now += BEGIN_TIMEOUT_SECONDS + 1
    for _ in range(2):
        await rig.scheduler.recover()
    left = len(rig.dispatcher.sent)
    assert await counts(rig) == {JobState.DISPATCHED: left, JobState.QUEUED: 10 - left}


async def test_those_who_wait_hear_how_many_are_ahead(rig: Rig):
    rig.bring_worker()
    peer = ListeningPeer()
    await rig.generate(ListeningPeer(), Generate(1, SpecDraft("first"), count=3))
    await rig.generate(peer, ONE)
    await rig.scheduler.tell_waiting()
    last = peer.all(Progress)[-1]
    assert (last.ahead, last.note) == (3, "3 ahead")


async def test_jobs_survive_a_restart(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        await rig.generate(ListeningPeer(), MANY)
        await rig.scheduler.dispatch()
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        await rig.scheduler.take_back()
        done = 0
        while True:
            await rig.scheduler.dispatch()
            if not rig.dispatcher.sent:
                break
            await rig.outcomes.apply(drawn(rig.dispatcher.take(), png()))
            done += 1
        assert done == 10
        assert (await rig.library.stats()).pictures == 10
