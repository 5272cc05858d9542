"""What a worker's events do, in any order and any number of times."""

from pathlib import Path

import pytest

from sdq.errors import StackError
from sdq.protocol.messages import CachePolicy, Failure, Generate, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.queue.job import Job
from sdq.server.queue.outcomes import MAX_ATTEMPTS, MAX_DEATHS, MAX_FAILURES, flaw_of
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, broke, drawn, heartbeat, returned, stepped, stopped
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

ASK = Generate(1, SpecDraft("a cat"))
NOT_KEPT = Generate(1, SpecDraft("a cat"), cache=CachePolicy.OFF)


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def dispatched(rig: Rig, peer: ListeningPeer, ask: Generate = ASK) -> Job:
    await rig.generate(peer, ask)
    await rig.scheduler.dispatch()
    return rig.dispatcher.take()


async def again(rig: Rig) -> Job:
    """The next attempt, as a worker takes it."""
    await rig.scheduler.dispatch()
    return rig.dispatcher.take()


async def row_of(rig: Rig, job: Job) -> Job:
    now = await rig.table.get(job.job_id)
    assert now is not None
    return now


async def state_of(rig: Rig, job: Job) -> JobState:
    return (await row_of(rig, job)).state


async def test_the_whole_way_is_told_in_order(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(begun(job, "gpu-1"))
    assert (await row_of(rig, job)).worker_id == "gpu-1"
    await rig.outcomes.apply(stepped(job, 5))
    await rig.outcomes.apply(drawn(job, png()))
    told = [(news.state, news.step) for news in peer.all(Progress)]
    assert told[-2:] == [(JobState.RUNNING, 0), (JobState.RUNNING, 5)]
    assert peer.told[-1] == peer.all(Picture)[0]
    assert await state_of(rig, job) is JobState.SUCCEEDED
    assert rig.dispatcher.flags == {}  # nobody else had it: nobody is stopped


async def test_who_waits_hears_how_long_the_steps_that_are_left_take(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    rig.speeds.learn("worker-1", job.spec, float(job.spec.num_inference_steps))
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(stepped(job, 5))
    left = float(job.spec.num_inference_steps)
    assert [news.eta_seconds for news in peer.all(Progress)][-2:] == [left, left - 5]


async def test_a_second_success_changes_nothing(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(drawn(job, png()))
    await rig.outcomes.apply(drawn(job, png(colour=(0, 0, 0))))
    assert len(peer.all(Picture)) == 1
    stored = await rig.library.get(job.key)
    assert stored is not None
    assert stored.image == png()


async def test_a_late_picture_of_an_earlier_attempt_counts_and_stops_the_later_one(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.take_back(job, "worker gone")
    second = await again(rig)
    assert not rig.dispatcher.is_stopped(second)
    await rig.outcomes.apply(begun(second))
    await rig.outcomes.apply(drawn(job, png()))
    assert await state_of(rig, job) is JobState.SUCCEEDED
    assert len(peer.all(Picture)) == 1
    assert rig.dispatcher.is_stopped(second)
    await rig.outcomes.apply(stopped(second))
    assert await state_of(rig, job) is JobState.SUCCEEDED


async def test_a_picture_of_a_job_that_waits_again_ends_it(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.take_back(job, "worker gone")
    await rig.outcomes.apply(drawn(job, png()))
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []
    assert len(peer.all(Picture)) == 1


async def test_a_picture_is_good_also_when_redis_cannot_be_told_to_stop_the_others(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    rig.dispatcher.is_away = True
    await rig.outcomes.apply(drawn(job, png()))
    assert await state_of(rig, job) is JobState.SUCCEEDED
    assert len(peer.all(Picture)) == 1


async def test_the_picture_of_a_cancelled_job_is_not_stored(rig: Rig):
    job = await dispatched(rig, ListeningPeer())
    original = rig.table.get

    async def cancelled_after_the_look(job_id: str) -> Job | None:
        found = await original(job_id)
        await rig.table.move(job_id, JobState.CANCELLED)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rig.table, "get", cancelled_after_the_look)
        await rig.outcomes.apply(drawn(job, png()))
    assert await state_of(rig, job) is JobState.CANCELLED
    assert (await rig.library.stats()).pictures == 0
    assert await rig.library.get(job.key) is None


async def test_what_is_not_to_be_kept_is_delivered_and_not_stored(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer, NOT_KEPT)
    await rig.outcomes.apply(drawn(job, png()))
    assert len(peer.all(Picture)) == 1
    assert await state_of(rig, job) is JobState.SUCCEEDED
    assert (await rig.library.stats()).pictures == 0


async def test_bad_luck_is_tried_again_and_given_up_with_the_last_cause(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    for _ in range(MAX_FAILURES - 1):
        await rig.outcomes.apply(broke(job, "cosmic rays", retryable=True))
        assert not peer.all(Failure)
        job = await again(rig)
    await rig.outcomes.apply(returned(job))
    job = await again(rig)
    await rig.outcomes.apply(broke(job, "cosmic rays", retryable=True))
    (failure,) = peer.all(Failure)
    assert failure.message == "cosmic rays (attempt 4, third failure)"
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths) == (JobState.FAILED, 3, 0)


async def test_bad_luck_that_is_read_twice_counts_once(rig: Rig):
    """Killed after the commit, before the event was deleted."""
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    for failures in range(1, MAX_FAILURES):
        for _ in range(2):
            await rig.outcomes.apply(broke(job, "cosmic rays", retryable=True))
        row = await row_of(rig, job)
        assert (row.state, row.failures) == (JobState.QUEUED, failures)
        job = await again(rig)
    assert not peer.all(Failure)


async def test_deaths_are_counted_apart_from_failures(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    for _ in range(MAX_DEATHS - 1):
        await rig.outcomes.died(await row_of(rig, job), "worker first is gone")
        assert not peer.all(Failure)
        job = await again(rig)
    await rig.outcomes.died(await row_of(rig, job), "worker first is gone")
    (failure,) = peer.all(Failure)
    assert failure.message == "5 workers died while they drew it; the last: worker first is gone"
    assert (await row_of(rig, job)).failures == 0


async def test_what_cannot_get_better_fails_at_once(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(broke(job, "it came out black", retryable=False))
    assert peer.all(Failure)[0].message == "it came out black"
    assert await state_of(rig, job) is JobState.FAILED


async def test_too_little_memory_everywhere_fails_at_once_with_advice(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(
        broke(job, "not enough memory; draw less", retryable=True, code="out_of_memory")
    )
    (failure,) = peer.all(Failure)
    assert (failure.code, failure.message) == ("out_of_memory", "not enough memory")
    assert failure.hint == "draw less"


async def test_advice_about_memory_is_given_also_when_the_worker_has_none(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(broke(job, "no memory", retryable=True, code="out_of_memory"))
    assert "smaller picture" in peer.all(Failure)[0].hint


async def test_too_little_memory_here_may_be_enough_on_another_worker(rig: Rig):
    manifest = rig.catalog.manifest(None)
    rig.roster.update([heartbeat(manifest, "worker-1"), heartbeat(manifest, "larger")])
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(broke(job, "no memory", retryable=True, code="out_of_memory"))
    assert not peer.all(Failure)
    row = await row_of(rig, job)
    assert (row.state, row.failures) == (JobState.QUEUED, 1)


async def test_old_news_of_an_earlier_attempt_changes_nothing(rig: Rig):
    job = await dispatched(rig, ListeningPeer())
    await rig.outcomes.take_back(job, "worker gone")
    second = await again(rig)
    before = await row_of(rig, second)
    for event in (
        broke(job, "too late to matter", retryable=False),
        broke(job, "too late to matter", retryable=True),
        begun(job),
        stopped(job),
        returned(job),
        drawn(job, b"no picture"),
    ):
        await rig.outcomes.apply(event)
        assert await row_of(rig, second) == before


async def test_events_of_unknown_jobs_have_no_effect(rig: Rig):
    job = await dispatched(rig, ListeningPeer())
    await rig.table.move(job.job_id, JobState.CANCELLED)
    rig.clock.now += 10
    await rig.table.purge(1)
    for event in (begun(job), stepped(job, 1), drawn(job, png()), returned(job), stopped(job)):
        await rig.outcomes.apply(event)
    assert (await rig.library.stats()).pictures == 0


async def test_a_failure_that_is_read_twice_is_counted_once(rig: Rig):
    job = await dispatched(rig, ListeningPeer())
    for _ in range(2):
        await rig.outcomes.apply(broke(job, "cosmic rays", retryable=True))
    assert (await row_of(rig, job)).failures == 1


@pytest.mark.parametrize("give_back", [stopped, returned])
async def test_what_is_given_back_waits_again_and_nothing_is_counted(rig: Rig, give_back):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(give_back(job))
    row = await row_of(rig, job)
    assert (row.state, row.failures, row.deaths, row.worker_id) == (JobState.QUEUED, 0, 0, None)
    assert "once more: worker worker-1" in peer.all(Progress)[-1].note
    assert (await again(rig)).attempt == 2


async def test_what_is_always_given_back_does_not_go_round_for_ever(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    for _ in range(MAX_ATTEMPTS - 1):
        await rig.outcomes.apply(returned(job, "it is broken"))
        job = await again(rig)
    assert not peer.all(Failure)
    await rig.outcomes.apply(returned(job, "it is broken"))
    assert "goes round in circles" in peer.all(Failure)[0].message


@pytest.mark.parametrize(
    ("image", "flaw"),
    [
        (b"", "a cut picture"),
        (b"GIF89a" + bytes(40), "something that is not a PNG"),
        (png(64, 64), "64x64 pixels instead of 128x128"),
        (png(), ""),
    ],
)
def test_flaws_are_named(image: bytes, flaw: str):
    assert flaw_of(image, 128, 128) == flaw


async def test_a_wrong_picture_is_never_stored_and_is_a_failure(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(drawn(job, png(64, 64)))
    assert (await rig.library.stats()).pictures == 0
    assert not peer.all(Picture)
    row = await row_of(rig, job)
    assert (row.state, row.failures) == (JobState.QUEUED, 1)


async def test_a_full_disk_does_not_take_the_picture_from_who_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)

    async def full(*_: object, **__: object) -> bool:
        raise StackError("the disk of the library is full")

    monkeypatch.setattr(rig.library, "put", full)
    await rig.outcomes.apply(drawn(job, png()))
    assert len(peer.all(Picture)) == 1
    now = await row_of(rig, job)
    assert (now.state, now.error_message) == (JobState.FAILED, "the disk of the library is full")


async def test_whoever_joins_while_the_disk_is_full_gets_the_picture_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    job = await dispatched(rig, ListeningPeer())
    late = ListeningPeer()

    async def full(*_: object, **__: object) -> bool:
        raise StackError("the disk of the library is full")

    original = rig.table.move

    async def move(job_id: str, after: JobState, **changes: object) -> Job | None:
        if after is JobState.FAILED:
            await rig.generate(late, ASK)
        return await original(job_id, after, **changes)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.library, "put", full)
    monkeypatch.setattr(rig.table, "move", move)
    await rig.outcomes.apply(drawn(job, png()))
    assert len(late.all(Picture)) == 1


async def test_a_table_that_cannot_be_written_holds_up_no_picture(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)

    async def full(*_: object, **__: object) -> list[Job]:
        raise StackError("the disk is full")

    monkeypatch.setattr(rig.table, "move_inside", full)
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(drawn(job, png()))
    assert len(peer.all(Picture)) == 1
    assert await state_of(rig, job) is JobState.DISPATCHED
    assert (await rig.library.stats()).pictures == 0  # with its job, or not at all
