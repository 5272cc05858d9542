"""Jobs that were given out and are lost: when that is certain, and what follows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdq.protocol.messages import Failure, Generate, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.queue.job import Job
from sdq.server.queue.outcomes import MAX_FAILURES
from sdq.server.queue.recovery import (
    MISSING_SECONDS,
    PATIENCE_SECONDS,
    PATIENCE_STEPS,
    UNMEASURED_PATIENCE_SECONDS,
)
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, drawn, heartbeat, returned, stepped
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

ONE = Generate(1, SpecDraft("a dog"))
BUSY_INTERVAL_SECONDS = 5.0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        beat(rig, first=())
        yield rig


def beat(rig: Rig, **active: tuple[str, ...]) -> None:
    """The heartbeats of a moment later; workers that are not named are gone."""
    rig.clock.now += 1
    manifest = rig.catalog.manifest(None)
    rig.roster.update(
        [
            heartbeat(manifest, worker, active=jobs, sent_at=rig.clock.now)
            for worker, jobs in active.items()
        ]
    )


async def taken(rig: Rig, peer: ListeningPeer | None = None) -> Job:
    """A job that a worker has taken from the queue."""
    await rig.generate(peer or ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    return rig.dispatcher.take()


async def drawing(rig: Rig, peer: ListeningPeer | None = None) -> Job:
    """A job that ``first`` has begun, seen by one look."""
    job = await taken(rig, peer)
    await rig.outcomes.apply(begun(job, "first"))
    beat(rig, first=(job.job_id,))
    assert not await rig.recovery.look()
    return job


async def row_of(rig: Rig, job: Job) -> Job:
    now = await rig.table.get(job.job_id)
    assert now is not None
    return now


async def state_of(rig: Rig, job: Job) -> JobState:
    return (await row_of(rig, job)).state


# ---------------------------------------------------------------- a worker that drew it


async def test_a_dead_workers_job_is_drawn_by_another_at_once(rig: Rig):
    peer = ListeningPeer()
    job = await drawing(rig, peer)
    beat(rig, second=())
    assert await rig.recovery.look()
    assert "worker first is gone" in peer.all(Progress)[-1].note
    row = await row_of(rig, job)
    assert (row.state, row.deaths, row.failures) == (JobState.QUEUED, 1, 0)
    await rig.scheduler.dispatch()
    again = rig.dispatcher.take()
    assert (again.job_id, again.attempt) == (job.job_id, 2)
    assert rig.dispatcher.is_stopped(job)  # should the dead one come to life again
    await rig.outcomes.apply(drawn(again, png(), "second"))
    assert len(peer.all(Picture)) == 1


async def test_a_job_that_was_begun_just_now_is_not_missed_at_the_first_look(rig: Rig):
    job = await taken(rig)
    beat(rig, second=())  # the roster was refreshed before "newcomer" was heard of
    await rig.outcomes.apply(begun(job, "newcomer"))
    assert not await rig.recovery.look()
    beat(rig, second=(), newcomer=(job.job_id,))
    assert not await rig.recovery.look()
    assert await state_of(rig, job) is JobState.RUNNING


async def test_a_picture_that_lies_unread_is_waited_for(rig: Rig):
    peer = ListeningPeer()
    job = await drawing(rig, peer)
    rig.ears.is_behind = True
    for _ in range(20):
        beat(rig, second=())
        assert not await rig.recovery.look()
    await rig.outcomes.apply(drawn(job, png(), "first"))
    rig.ears.is_behind = False
    assert not await rig.recovery.look()
    assert len(peer.all(Picture)) == 1
    assert (await row_of(rig, job)).deaths == 0


async def test_what_is_read_between_the_look_and_the_act_counts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    job = await drawing(rig)
    beat(rig, second=())

    async def read_on(mark: int) -> bool:
        await rig.outcomes.apply(drawn(job, png(), "first"))
        return True

    monkeypatch.setattr(rig.ears, "has_passed", read_on)
    assert not await rig.recovery.look()
    assert await state_of(rig, job) is JobState.SUCCEEDED


async def test_a_worker_that_was_restarted_has_forgotten_its_job(rig: Rig):
    job = await drawing(rig)
    for _ in range(int(MISSING_SECONDS) + 1):
        beat(rig, first=())
        assert not await rig.recovery.look()  # one heartbeat may be from just before it was taken
    beat(rig, first=())
    assert await rig.recovery.look()
    row = await row_of(rig, job)
    assert (row.state, row.deaths) == (JobState.QUEUED, 1)


async def test_what_a_restarted_worker_says_counts_before_absence_does(rig: Rig):
    """Right after a start of the server, or of Redis: nobody waits for heartbeats to lapse."""
    job = await drawing(rig)
    rig.recovery.start_over()
    found = False
    for _ in range(int(MISSING_SECONDS) + 3):
        beat(rig, first=())
        found |= await rig.recovery.look(absence_counts=False)
    assert found
    assert (await row_of(rig, job)).deaths == 1


async def test_a_worker_that_is_not_heard_yet_keeps_its_job(rig: Rig):
    job = await drawing(rig)
    await rig.generate(ListeningPeer(), Generate(2, SpecDraft("a cat")))
    await rig.scheduler.dispatch()
    given = rig.dispatcher.take()  # by a worker that never came to say so
    rig.recovery.start_over()
    for _ in range(30):
        beat(rig, second=())
        assert not await rig.recovery.look(absence_counts=False)
    assert await state_of(rig, job) is JobState.RUNNING
    assert await state_of(rig, given) is JobState.DISPATCHED
    # What was seen meanwhile counts: now that absence does, nobody looks on for longer.
    assert await rig.recovery.look()
    assert await state_of(rig, job) is JobState.QUEUED
    assert await state_of(rig, given) is JobState.QUEUED


async def test_a_job_that_is_named_again_is_not_lost(rig: Rig):
    job = await drawing(rig)
    for _ in range(10):
        beat(rig, first=())
        assert not await rig.recovery.look()
        beat(rig, first=(job.job_id,))
        assert not await rig.recovery.look()


# ---------------------------------------------------------------- a worker that only had it in hand


@pytest.mark.parametrize("survivors", [{"second": ()}, {"first": ()}])
async def test_what_a_worker_had_only_in_hand_is_taken_back_at_once(
    rig: Rig, survivors: dict[str, tuple[str, ...]]
):
    peer = ListeningPeer()
    job = await taken(rig, peer)
    beat(rig, first=(job.job_id,))
    assert not await rig.recovery.look()
    beat(rig, **survivors)
    assert await rig.recovery.look()
    row = await row_of(rig, job)
    assert (row.state, row.deaths, row.failures) == (JobState.QUEUED, 0, 0)
    await rig.scheduler.dispatch()
    assert rig.dispatcher.take().attempt == 2
    assert not peer.all(Failure)


async def test_what_was_given_back_is_not_taken_back_twice(rig: Rig):
    job = await taken(rig)
    beat(rig, first=(job.job_id,))
    assert not await rig.recovery.look()
    await rig.outcomes.apply(returned(job))
    await rig.scheduler.dispatch()
    again = rig.dispatcher.take()
    beat(rig, second=(again.job_id,))
    assert not await rig.recovery.look()
    assert (await row_of(rig, job)).attempt == 2


async def test_a_task_that_waits_in_its_queue_is_left_there(rig: Rig):
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    for _ in range(60):
        beat(rig, first=())
        assert not await rig.recovery.look()
    assert (await rig.table.counts())[JobState.DISPATCHED] == 1


async def test_a_task_that_nobody_has_is_sent_again_when_all_have_said_so_twice(rig: Rig):
    job = await taken(rig)
    seconds = 0
    while not await rig.recovery.look():
        beat(rig, first=())
        seconds += 1
    assert seconds == MISSING_SECONDS + 1
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths) == (JobState.QUEUED, 0, 0)


async def test_a_worker_that_is_silent_may_have_it_until_its_heartbeat_lapses(rig: Rig):
    manifest = rig.catalog.manifest(None)
    frozen = heartbeat(manifest, "frozen", sent_at=1)
    rig.roster.update([heartbeat(manifest, "first"), frozen])
    job = await taken(rig)
    for _ in range(7):
        rig.clock.now += 1
        rig.roster.update([heartbeat(manifest, "first", sent_at=rig.clock.now), frozen])
        assert not await rig.recovery.look()
    beat(rig, first=())
    assert await rig.recovery.look()
    assert await state_of(rig, job) is JobState.QUEUED


async def test_a_task_on_its_way_to_redis_is_not_missed(rig: Rig):
    job = await taken(rig)
    for _ in range(20):
        beat(rig, first=())
        assert not await rig.recovery.look(sending={job.job_id})


async def test_a_task_that_was_lost_among_others_is_sent_again(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, SpecDraft("a cat"), count=3))
    await rig.scheduler.dispatch()
    lost = rig.dispatcher.take()
    for _ in range(6):
        beat(rig, first=())
        await rig.recovery.look()
    assert await state_of(rig, lost) is JobState.QUEUED
    assert (await rig.table.counts())[JobState.DISPATCHED] == 2


# ---------------------------------------------------------------- deadlines from progress


async def pass_seconds(rig: Rig, seconds: float, job: Job) -> bool:
    """The worker is alive and has the job in hand all the time; whether it was given up."""
    rig.clock.now += seconds
    beat(rig, first=(job.job_id,))
    return await rig.recovery.look()


async def test_an_engine_that_hangs_loses_its_job_after_a_time_from_its_step_time(rig: Rig):
    peer = ListeningPeer()
    job = await drawing(rig, peer)
    rig.speeds.learn("first", job.spec, 2.0 * job.spec.num_inference_steps)
    patience_seconds = PATIENCE_SECONDS + PATIENCE_STEPS * 2.0
    assert not await pass_seconds(rig, patience_seconds - 5, job)
    await rig.outcomes.apply(stepped(job, 3, "first"))
    assert not await pass_seconds(rig, patience_seconds - 5, job)
    assert await pass_seconds(rig, 10, job)
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths) == (JobState.QUEUED, 1, 0)
    assert rig.dispatcher.is_stopped(job)
    assert "drew no step for" in peer.all(Progress)[-1].note


async def test_before_any_measurement_an_engine_has_ten_minutes(rig: Rig):
    job = await drawing(rig)
    assert not await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS - 5, job)
    assert await pass_seconds(rig, 10, job)


async def test_a_job_whose_model_comes_into_memory_has_ten_minutes_too(rig: Rig):
    job = await taken(rig)
    rig.speeds.learn("first", job.spec, 0.1)
    beat(rig, first=(job.job_id,))
    assert not await rig.recovery.look()

    async def look_after(seconds: float) -> bool:
        rig.clock.now += seconds
        manifest = rig.catalog.manifest(None)
        active = (job.job_id,)
        now = heartbeat(manifest, "first", active=active, loaded=(), sent_at=rig.clock.now)
        rig.roster.update([now])
        return await rig.recovery.look()

    assert not await look_after(UNMEASURED_PATIENCE_SECONDS - 5)
    assert await look_after(10)
    assert await state_of(rig, job) is JobState.QUEUED


async def test_a_job_does_not_wait_for_its_model_at_a_worker_that_hangs(rig: Rig):
    job = await taken(rig)
    rig.speeds.learn("first", job.spec, 0.1)
    manifest = rig.catalog.manifest(None)

    async def look_after(seconds: float) -> bool:
        rig.clock.now += seconds
        active = (job.job_id, "of another model")
        now = heartbeat(manifest, "first", active=active, loaded=(), sent_at=rig.clock.now)
        rig.roster.update([now])
        return await rig.recovery.look()

    assert not await look_after(1)
    assert not await look_after(PATIENCE_SECONDS + 5)
    rig.roster.distrust("first", "of another model")
    assert await look_after(1)
    assert await state_of(rig, job) is JobState.QUEUED


async def test_an_engine_that_hangs_at_one_picture_each_time_fails_it(rig: Rig):
    peer = ListeningPeer()
    job = await drawing(rig, peer)
    for _ in range(MAX_FAILURES - 1):
        assert await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 1, job)
        beat(rig, first=())  # its engine gets on, and lets go of the job
        await rig.scheduler.dispatch()
        job = rig.dispatcher.take()
        await rig.outcomes.apply(begun(job, "first"))
        assert not await pass_seconds(rig, 0, job)
    assert await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 1, job)
    assert "third failure" in peer.all(Failure)[0].message


async def test_a_worker_whose_engine_hangs_gets_no_new_job_until_it_lets_go(rig: Rig):
    peer = ListeningPeer()
    job = await drawing(rig, peer)
    assert await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 1, job)
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []
    await rig.scheduler.tell_waiting()
    assert "does not get on" in peer.all(Progress)[-1].note
    beat(rig, first=())  # it drew a step after all, and saw that the job was stopped
    await rig.scheduler.dispatch()
    assert [sent.job_id for sent in rig.dispatcher.sent] == [job.job_id]
    assert rig.dispatcher.drained == []


async def test_a_worker_that_hangs_and_takes_jobs_all_the_same_is_drained(rig: Rig):
    """Else it would take each job that goes first, sooner than a worker that has its hands full."""
    hung = await drawing(rig)
    assert await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 1, hung)
    beat(rig, first=(hung.job_id,), second=())
    await rig.generate(ListeningPeer(), Generate(2, SpecDraft("a cat")))
    await rig.scheduler.dispatch()
    _, other = rig.dispatcher.take(), rig.dispatcher.take()
    hands = {"first": (hung.job_id, other.job_id), "second": ()}
    beat(rig, **hands)
    await rig.recovery.look()
    assert rig.dispatcher.drained == []
    rig.clock.now += UNMEASURED_PATIENCE_SECONDS
    beat(rig, **hands)
    await rig.recovery.look()
    assert await state_of(rig, other) is JobState.QUEUED
    assert set(rig.dispatcher.drained) == {"first"}


async def test_what_waits_behind_an_engine_that_hangs_is_given_to_another(rig: Rig):
    job = await taken(rig)
    assert not await pass_seconds(rig, 1, job)
    await rig.outcomes.apply(stepped(job, 1, "first"))  # it draws something else meanwhile
    assert not await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS - 5, job)
    await rig.outcomes.apply(stepped(job, 2, "first"))
    assert not await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS - 5, job)
    assert await pass_seconds(rig, 10, job)
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths) == (JobState.QUEUED, 0, 0)
    assert rig.dispatcher.is_stopped(job)


async def test_a_job_that_waits_for_its_lora_stays_while_its_worker_says_so(rig: Rig):
    """As `sdq.worker.tasks` does while it fetches one: a word that is no step."""
    job = await taken(rig)
    rig.speeds.learn("first", job.spec, 0.1)
    for _ in range(120):  # ten minutes, far over the patience with a quick worker
        await rig.outcomes.apply(stepped(job, 0, "first"))
        assert not await pass_seconds(rig, BUSY_INTERVAL_SECONDS, job)
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths) == (JobState.DISPATCHED, 0, 0)
    assert not await pass_seconds(rig, PATIENCE_SECONDS / 2, job)  # and no word more
    assert await pass_seconds(rig, PATIENCE_SECONDS + PATIENCE_STEPS, job)
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths) == (JobState.QUEUED, 0, 0)


async def test_a_later_attempt_in_the_queue_is_not_held_by_who_hangs(rig: Rig):
    job = await taken(rig)
    assert not await pass_seconds(rig, 1, job)
    assert await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 5, job)
    await rig.scheduler.dispatch()
    assert not await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 5, job)
    assert not await pass_seconds(rig, UNMEASURED_PATIENCE_SECONDS + 5, job)
    assert (await row_of(rig, job)).attempt == 2


async def test_time_in_which_nobody_listened_is_not_counted(rig: Rig):
    job = await drawing(rig)
    rig.clock.now += UNMEASURED_PATIENCE_SECONDS * 2
    rig.recovery.start_over()
    assert not await pass_seconds(rig, 1, job)
    assert not await pass_seconds(rig, 1, job)
    assert await state_of(rig, job) is JobState.RUNNING


# ---------------------------------------------------------------- Redis


async def test_an_empty_redis_gets_its_tasks_again_and_hands_keep_theirs(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, SpecDraft("a cat"), count=3))
    await rig.scheduler.dispatch()
    held = rig.dispatcher.take()
    beat(rig, first=(held.job_id,))
    rig.dispatcher.sent.clear()
    assert await rig.recovery.after_empty_redis()
    assert await state_of(rig, held) is JobState.DISPATCHED
    await rig.scheduler.dispatch()
    assert [job.attempt for job in rig.dispatcher.sent] == [2, 2]


async def test_a_picture_that_was_lost_with_redis_is_nobodys_fault(rig: Rig):
    job = await drawing(rig)
    await rig.recovery.after_empty_redis()
    for _ in range(5):
        beat(rig, first=())
        await rig.recovery.look()
    row = await row_of(rig, job)
    assert (row.state, row.deaths, row.failures) == (JobState.QUEUED, 0, 0)


async def test_nothing_is_remembered_of_jobs_that_are_over(rig: Rig):
    job = await drawing(rig)
    await rig.recovery.after_empty_redis()
    await rig.outcomes.apply(drawn(job, png(), "first"))
    beat(rig, first=())
    assert not await rig.recovery.look()
    assert not rig.news.is_running(job.job_id)
    assert vars(rig.recovery)["_trails"] == {}
    assert vars(rig.recovery)["_flushed"] == set()


async def test_an_empty_redis_revives_no_attempt_of_a_job_that_waits_again(rig: Rig):
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    first = rig.dispatcher.take()  # somebody has it, and says nothing of it
    await rig.table.take_back([first.job_id])
    await rig.scheduler.dispatch()
    second = rig.dispatcher.take()
    await rig.table.take_back([first.job_id])
    rig.dispatcher.flags.clear()
    await rig.scheduler.take_back()
    assert rig.dispatcher.is_stopped(first)
    assert not rig.dispatcher.is_stopped(second)
