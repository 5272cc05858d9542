"""What a worker's events do, in any order and any number of times."""

from pathlib import Path

import pytest

from sdq.broker import Stepped, Stopped
from sdq.errors import StackError
from sdq.protocol.messages import Failure, Generate, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.jobs import Job
from sdq.server.outcomes import MAX_ATTEMPTS, flaw_of
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, broke, drawn
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

ASK = Generate(1, SpecDraft("a cat"))


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def dispatched(rig: Rig, peer: ListeningPeer) -> Job:
    await rig.generate(peer, ASK)
    await rig.scheduler.dispatch()
    return rig.dispatcher.take()


async def state_of(rig: Rig, job: Job) -> JobState:
    now = await rig.table.get(job.job_id)
    assert now is not None
    return now.state


async def test_the_whole_way_is_told_in_order(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(Stepped(job.job_id, job.attempt, "worker-1", 5, 20))
    await rig.outcomes.apply(drawn(job, png()))
    told = [(news.state, news.step) for news in peer.all(Progress)]
    assert told[-2:] == [(JobState.RUNNING, 0), (JobState.RUNNING, 5)]
    assert peer.told[-1] == peer.all(Picture)[0]
    assert await state_of(rig, job) is JobState.SUCCEEDED


async def test_a_second_success_changes_nothing(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(drawn(job, png()))
    await rig.outcomes.apply(drawn(job, png(colour=(0, 0, 0))))
    assert len(peer.all(Picture)) == 1
    stored = await rig.library.get(job.key)
    assert stored is not None
    assert stored.image == png()


async def test_a_late_picture_of_an_earlier_attempt_counts(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.lost(job, "worker gone")
    await rig.outcomes.apply(drawn(job, png()))
    assert await state_of(rig, job) is JobState.SUCCEEDED
    assert len(peer.all(Picture)) == 1
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []


async def test_bad_luck_is_tried_again_and_given_up_with_the_last_cause(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    for _ in range(MAX_ATTEMPTS - 1):
        await rig.outcomes.apply(broke(job, "cosmic rays", retryable=True))
        assert not peer.all(Failure)
        await rig.scheduler.dispatch()
        job = rig.dispatcher.take()
    assert job.attempt == MAX_ATTEMPTS
    await rig.outcomes.apply(broke(job, "cosmic rays", retryable=True))
    (failure,) = peer.all(Failure)
    assert failure.message == "cosmic rays (attempt 3 of 3)"
    assert await state_of(rig, job) is JobState.FAILED


async def test_what_cannot_get_better_fails_at_once(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(broke(job, "out of memory", retryable=False))
    assert peer.all(Failure)[0].message == "out of memory"
    assert await state_of(rig, job) is JobState.FAILED


async def test_old_news_of_an_earlier_attempt_is_ignored(rig: Rig):
    job = await dispatched(rig, ListeningPeer())
    await rig.outcomes.lost(job, "worker gone")
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(broke(job, "too late to matter", retryable=False))
    await rig.outcomes.apply(begun(job))
    assert await state_of(rig, job) is JobState.DISPATCHED


async def test_stopped_by_an_old_flag_is_drawn_after_all(rig: Rig):
    job = await dispatched(rig, ListeningPeer())
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(Stopped(job.job_id, job.attempt, "worker-1"))
    assert await state_of(rig, job) is JobState.QUEUED


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


async def test_a_wrong_picture_is_never_stored(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    await rig.outcomes.apply(drawn(job, png(64, 64)))
    assert (await rig.library.stats()).pictures == 0
    assert not peer.all(Picture)
    assert await state_of(rig, job) is JobState.QUEUED


async def test_a_full_disk_does_not_take_the_picture_from_who_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)

    async def full(*_: object) -> None:
        raise StackError("the disk of the library is full")

    monkeypatch.setattr(rig.library, "put", full)
    await rig.outcomes.apply(drawn(job, png()))
    assert len(peer.all(Picture)) == 1
    now = await rig.table.get(job.job_id)
    assert now is not None
    assert (now.state, now.error_message) == (JobState.FAILED, "the disk of the library is full")


async def test_whoever_joins_while_the_disk_is_full_gets_the_picture_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    job = await dispatched(rig, ListeningPeer())
    late = ListeningPeer()

    async def full(*_: object) -> None:
        raise StackError("the disk of the library is full")

    original = rig.table.move

    async def move(job_id: str, after: JobState, **changes: object) -> Job | None:
        if after is JobState.FAILED:
            await rig.generate(late, ASK)
        return await original(job_id, after, **changes)

    monkeypatch.setattr(rig.library, "put", full)
    monkeypatch.setattr(rig.table, "move", move)
    await rig.outcomes.apply(drawn(job, png()))
    assert len(late.all(Picture)) == 1


async def test_a_table_that_cannot_be_written_holds_up_no_picture(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)

    async def full(*_: object, **__: object) -> None:
        raise StackError("the disk is full")

    monkeypatch.setattr(rig.table, "move_many", full)
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(drawn(job, png()))
    assert len(peer.all(Picture)) == 1
    assert await state_of(rig, job) is JobState.DISPATCHED


async def test_a_worker_that_stops_a_wanted_job_does_not_get_it_for_ever(rig: Rig):
    peer = ListeningPeer()
    job = await dispatched(rig, peer)
    for _ in range(MAX_ATTEMPTS):
        await rig.outcomes.apply(Stopped(job.job_id, job.attempt, "worker-1"))
        await rig.scheduler.dispatch()
        job = rig.dispatcher.take() if rig.dispatcher.sent else job
    assert await state_of(rig, job) is JobState.FAILED
    assert len(peer.all(Failure)) == 1
