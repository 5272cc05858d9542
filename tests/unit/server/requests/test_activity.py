"""What `sdq top` is told: tallies, and how much each person waits for."""

from pathlib import Path

import pytest

from sdq.protocol.activity_messages import GetActivity, ModelTally, PersonLoad
from sdq.protocol.job_messages import Submit
from sdq.protocol.messages import CachePolicy, Generate
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, broke
from sdq.testing.rig import ListeningPeer, Rig, open_rig

CAT, DOG = SpecDraft("a cat"), SpecDraft("a dog")
ME, HER = "10.0.0.1", "10.0.0.2"


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def test_nothing_has_happened(rig: Rig):
    activity = await rig.activity.report(GetActivity(7), ME)
    assert activity.request_id == 7
    assert (activity.hits, activity.misses, activity.failed) == (0, 0, 0)
    assert activity.people == activity.drawn == activity.events == ()


async def test_pictures_are_counted(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT, count=2))
    await rig.draw_all()
    await rig.generate(ListeningPeer(), Generate(2, CAT, count=2))  # from the disk or memory
    assert rig.generation.answer_from_memory(Generate(3, CAT, count=2), ListeningPeer())
    await rig.submission.submit(Submit(4, CAT, count=3), ME)
    activity = await rig.activity.report(GetActivity(1), ME)
    assert (activity.hits, activity.misses) == (6, 3)
    assert activity.drawn == (ModelTally("shapes", 2),)
    assert [event.what for event in activity.events] == ["drawn", "drawn"]
    assert activity.events[0].worker_id == "worker-1"
    assert sum(rig.tallies.hit_counts) == 2


async def test_a_failure_is_told(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT, cache=CachePolicy.REFRESH))
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(broke(job, "no\x1b luck", retryable=False))
    activity = await rig.activity.report(GetActivity(1), ME)
    assert (activity.failed, activity.misses) == (1, 1)
    assert [(one.what, one.note) for one in activity.events] == [("failed", "no\x1b luck")]


async def test_others_are_nobody_in_particular(rig: Rig):
    await rig.submission.submit(Submit(1, CAT, count=5), HER)
    await rig.submission.submit(Submit(1, DOG, count=1), ME)
    await rig.scheduler.dispatch()  # one each, and one more for the worker's queue
    activity = await rig.activity.report(GetActivity(1), ME)
    hers, mine = activity.people
    assert not hers.is_mine
    assert mine.is_mine
    assert hers == PersonLoad(False, 5, 0)
    assert mine == PersonLoad(True, 1, 0)
    assert HER not in repr(activity)


async def test_a_job_is_being_drawn_once_it_was_begun(rig: Rig):
    await rig.submission.submit(Submit(1, CAT, count=3), ME)
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(begun(rig.dispatcher.take()))
    (mine,) = (await rig.activity.report(GetActivity(1), ME)).people
    assert mine == PersonLoad(True, 2, 1)


async def test_ended_jobs_are_nobodys_load(rig: Rig):
    await rig.submission.submit(Submit(1, CAT), ME)
    await rig.draw_all()
    assert (await rig.activity.report(GetActivity(1), ME)).people == ()
