"""What `sdq jobs` is told."""

from pathlib import Path

import pytest

from sdq.protocol.job_messages import ListJobs
from sdq.protocol.states import JobState
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, broke
from sdq.testing.rig import Rig, open_rig

ME, YOU = "10.0.0.1", "10.0.0.2"


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        yield rig


async def test_the_newest_first_mine_marked_and_the_others_counted(rig: Rig):
    (old,) = await rig.submit(SpecDraft("a cat"), ME)
    rig.clock.now += 10
    newer = await rig.submit(SpecDraft("a dog"), YOU, count=2)
    rig.clock.now += 5
    jobs = await rig.job_list.list(ListJobs(3), ME)
    assert (jobs.request_id, jobs.more) == (3, 0)
    assert [job.job_id for job in jobs.jobs] == [*reversed(newer), old]
    assert [job.is_mine for job in jobs.jobs] == [False, False, True]
    assert [job.created_seconds_ago for job in jobs.jobs] == [5, 5, 15]
    assert {job.state for job in jobs.jobs} == {JobState.QUEUED}
    few = await rig.job_list.list(ListJobs(3, limit=1), ME)
    assert ([job.job_id for job in few.jobs], few.more) == ([newer[1]], 2)
    mine = await rig.job_list.list(ListJobs(3, mine=True), ME)
    assert [job.job_id for job in mine.jobs] == [old]


async def test_why_a_job_waits_is_said_in_words(rig: Rig):
    await rig.submit(SpecDraft("a cat"), ME)
    (job,) = (await rig.job_list.list(ListJobs(1), ME)).jobs
    assert job.note == "no worker online holds 'shapes'"


async def test_a_job_at_its_end_says_how_it_ended(rig: Rig):
    rig.bring_worker()
    (job_id,) = await rig.submit(SpecDraft("a cat"), ME)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    (running,) = (await rig.job_list.list(ListJobs(1), ME)).jobs
    assert (running.state, running.worker_id, running.attempt) == (JobState.RUNNING, "worker-1", 1)
    await rig.outcomes.apply(broke(job, "the model is broken", retryable=False))
    assert (await rig.job_list.list(ListJobs(1), ME)).jobs == ()
    (ended,) = (await rig.job_list.list(ListJobs(1, ended=True), ME)).jobs
    assert (ended.job_id, ended.state, ended.error_code, ended.error_message, ended.note) == (
        *(job_id, JobState.FAILED, "generation_failed", "the model is broken", ""),
    )
