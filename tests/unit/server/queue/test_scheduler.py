"""The window, whose turn it is, when the roster is trusted, and what those who wait are told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdq.broker import HEARTBEAT_TIMEOUT_SECONDS
from sdq.errors import StackError
from sdq.protocol.messages import Failure, Generate, Progress
from sdq.protocol.states import JobState
from sdq.server.queue.dispatch import RedisGone
from sdq.server.queue.scheduler import LATE_SECONDS, MAX_TOLD_JOBS
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, drawn, heartbeat
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

MANY = Generate(1, SpecDraft("a cat"), count=10)
ONE = Generate(1, SpecDraft("a dog"))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        yield rig


async def counts(rig: Rig) -> dict[JobState, int]:
    return {state: count for state, count in (await rig.table.counts()).items() if count}


# ---------------------------------------------------------------- the window


async def test_nothing_goes_to_redis_while_nobody_can_do_it(rig: Rig):
    await rig.generate(ListeningPeer(), MANY)
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []
    assert await counts(rig) == {JobState.QUEUED: 10}


async def test_redis_holds_what_workers_take_and_one_more_for_each(rig: Rig):
    manifest = rig.catalog.manifest(None)
    rig.roster.update(
        [heartbeat(manifest, "a", concurrency=1), heartbeat(manifest, "b", concurrency=3)]
    )
    await rig.generate(ListeningPeer(), MANY)
    await rig.scheduler.dispatch()
    await rig.scheduler.dispatch()
    window = (1 + 1) + (3 + 1)
    assert len(rig.dispatcher.sent) == window
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == window - 1
    await rig.outcomes.apply(drawn(job, png()))
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == window


async def test_a_single_picture_waits_for_no_more_of_a_batch_than_the_window(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer("batch"), MANY)
    await rig.scheduler.dispatch()
    window = len(rig.dispatcher.sent)
    single = ListeningPeer("single")
    await rig.generate(single, ONE)
    for _ in range(window):
        await rig.outcomes.apply(drawn(rig.dispatcher.take(), png()))
    await rig.scheduler.dispatch()
    assert rig.dispatcher.take().identity == "single"


async def test_dispatching_reads_no_rows_that_it_does_not_send(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), MANY)

    async def in_state(*_: object, **__: object) -> list[Any]:
        raise AssertionError("that grows with the queue")

    monkeypatch.setattr(rig.table, "in_state", in_state)
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 3


# ---------------------------------------------------------------- Redis away


async def test_when_redis_is_away_the_jobs_stay_in_the_table(rig: Rig):
    rig.bring_worker()
    rig.dispatcher.is_away = True
    await rig.generate(ListeningPeer(), ONE)
    for _ in range(2):
        with pytest.raises(RedisGone):
            await rig.scheduler.dispatch()
        assert await counts(rig) == {JobState.QUEUED: 1}
    rig.dispatcher.is_away = False
    await rig.scheduler.dispatch()
    (job,) = rig.dispatcher.sent
    assert (job.attempt, job.failures, job.deaths) == (3, 0, 0)


async def test_what_arrived_before_redis_went_away_is_stopped_when_it_is_sent_again(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), Generate(1, SpecDraft("a cat"), count=3))
    rig.dispatcher.cut_after = 2
    with pytest.raises(RedisGone):
        await rig.scheduler.dispatch()
    arrived = list(rig.dispatcher.sent)
    assert len(arrived) == 2
    rig.dispatcher.is_away = False
    rig.dispatcher.sent.clear()
    await rig.scheduler.dispatch()
    assert [job.attempt for job in rig.dispatcher.sent] == [2, 2, 2]
    assert all(rig.dispatcher.is_stopped(job) for job in arrived)
    assert not any(rig.dispatcher.is_stopped(job) for job in rig.dispatcher.sent)
    # Should one of the first be drawn all the same, its picture counts, and once.
    await rig.outcomes.apply(drawn(arrived[0], png()))
    await rig.outcomes.apply(drawn(rig.dispatcher.sent[0], png()))
    assert (await rig.library.stats()).pictures == 1
    assert (await counts(rig))[JobState.SUCCEEDED] == 1


# ---------------------------------------------------------------- when the roster is trusted


async def test_a_lost_job_is_found_at_the_next_ticks(rig: Rig):
    rig.bring_worker("first")
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job, "first"))
    rig.roster.update([])
    for _ in range(2):
        rig.clock.now += 1
        await rig.scheduler.recover()
    assert await counts(rig) == {JobState.QUEUED: 1}


async def test_after_a_pause_of_our_own_heartbeats_may_have_expired_unheard(rig: Rig):
    rig.bring_worker("first")
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(begun(rig.dispatcher.take(), "first"))
    await rig.scheduler.recover()
    rig.clock.now += LATE_SECONDS + 1
    rig.roster.update([])
    for _ in range(int(HEARTBEAT_TIMEOUT_SECONDS)):
        await rig.scheduler.recover()
        assert await counts(rig) == {JobState.RUNNING: 1}
        rig.clock.now += 1
    for _ in range(3):
        await rig.scheduler.recover()
        rig.clock.now += 1
    assert await counts(rig) == {JobState.QUEUED: 1}


async def test_an_empty_redis_gets_its_tasks_again(rig: Rig):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    rig.dispatcher.sent.clear()
    await rig.scheduler.take_back()
    await rig.scheduler.dispatch()
    assert [job.attempt for job in rig.dispatcher.sent] == [2]


async def test_workers_whose_heartbeats_redis_forgot_keep_what_they_draw(rig: Rig):
    rig.bring_worker("first")
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job, "first"))
    await rig.scheduler.recover()
    await rig.scheduler.take_back()
    rig.roster.update([])
    for _ in range(4):
        rig.clock.now += 1
        await rig.scheduler.recover()
    for _ in range(20):
        rig.clock.now += 1
        rig.bring_worker("first", active=(job.job_id,))
        await rig.scheduler.recover()
    assert await counts(rig) == {JobState.RUNNING: 1}


# ---------------------------------------------------------------- those who wait


async def test_those_who_wait_hear_how_many_are_ahead(rig: Rig):
    rig.bring_worker()
    peer = ListeningPeer()
    await rig.generate(ListeningPeer(), Generate(1, SpecDraft("first"), count=3))
    await rig.generate(peer, ONE)
    await rig.scheduler.tell_waiting()
    last = peer.all(Progress)[-1]
    assert (last.ahead, last.note) == (3, "3 ahead")


async def test_those_who_wait_hear_how_long(rig: Rig):
    rig.bring_worker()
    peer = ListeningPeer()
    request = await rig.generate(peer, Generate(1, SpecDraft("a dog"), count=2))
    (job, _) = [await rig.table.get(one.job_id) for one in request.waiting.values()]
    assert job is not None
    rig.speeds.learn("worker-1", job.spec, 20.0)
    await rig.scheduler.tell_waiting()
    assert {news.index: news.eta_seconds for news in peer.all(Progress)} == {0: 20.0, 1: 40.0}


async def test_only_jobs_that_somebody_waits_for_are_looked_at(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.bring_worker()
    left = await rig.generate(ListeningPeer(), MANY)
    rig.subscriptions.drop(left)
    asked: list[str] = []
    original = rig.table.get_many

    async def get_many(job_ids: Any) -> Any:
        asked.extend(job_ids)
        return await original(job_ids)

    monkeypatch.setattr(rig.table, "get_many", get_many)
    await rig.scheduler.tell_waiting()
    assert asked == []
    for index in range(7):
        await rig.generate(ListeningPeer(), Generate(1, SpecDraft(f"prompt {index}"), count=100))
    await rig.scheduler.tell_waiting()
    assert len(asked) == MAX_TOLD_JOBS


async def test_a_job_that_begins_meanwhile_is_not_said_to_wait(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.bring_worker()
    peer = ListeningPeer()
    await rig.generate(peer, ONE)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    original = rig.waiting.explain

    async def explain(jobs: Any) -> Any:
        whys = await original(jobs)
        await rig.outcomes.apply(begun(job))
        return whys

    monkeypatch.setattr(rig.waiting, "explain", explain)
    await rig.scheduler.tell_waiting()
    assert peer.all(Progress)[-1].state is JobState.RUNNING


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


# ---------------------------------------------------------------- the tick


class Enough(Exception):
    """Ends a loop that never ends."""


class NoRedis:
    """As much of a Redis as a tick asks for: nobody is online."""

    async def zrange(self, *_: object) -> list[bytes]:
        return []


async def test_each_tick_notices_that_redis_forgot_everything(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    rig.ears.came_back_empty = True

    async def enough(seconds: float) -> None:
        raise Enough

    monkeypatch.setattr("sdq.server.queue.scheduler.asyncio.sleep", enough)
    with pytest.raises(Enough):
        await rig.scheduler.watch(NoRedis())  # type: ignore[arg-type]
    assert await counts(rig) == {JobState.QUEUED: 1}


async def test_a_full_disk_does_not_end_the_watch(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    await rig.generate(ListeningPeer(), ONE)
    ticks = 0

    async def full(*_: object, **__: object) -> Any:
        raise StackError("the disk is full")

    async def count(seconds: float) -> None:
        nonlocal ticks
        ticks += 1
        rig.clock.now += seconds
        if ticks == 20:
            raise Enough

    for name in ("in_state", "get_many"):
        monkeypatch.setattr(rig.table, name, full)
    monkeypatch.setattr("sdq.server.queue.scheduler.asyncio.sleep", count)
    with pytest.raises(Enough):
        await rig.scheduler.watch(NoRedis())  # type: ignore[arg-type]
    assert ticks == 20


async def test_a_take_back_that_finds_the_disk_full_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """That Redis is empty is heard of only once."""
    rig.bring_worker()
    await rig.generate(ListeningPeer(), ONE)
    await rig.scheduler.dispatch()
    rig.ears.came_back_empty = True
    take_back, ticks = rig.table.take_back, 0

    async def full_at_first(job_ids: Any) -> Any:
        if ticks < 2:
            raise StackError("the disk is full")
        return await take_back(job_ids)

    async def count(seconds: float) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            raise Enough

    monkeypatch.setattr(rig.table, "take_back", full_at_first)
    monkeypatch.setattr("sdq.server.queue.scheduler.asyncio.sleep", count)
    with pytest.raises(Enough):
        await rig.scheduler.watch(NoRedis())  # type: ignore[arg-type]
    assert await counts(rig) == {JobState.QUEUED: 1}


async def test_a_defect_of_ours_ends_neither_watch_nor_dispatch_and_is_told_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ticks = 0

    async def stumble(*_: object, **__: object) -> Any:
        raise KeyError("a defect")

    async def count(seconds: float) -> None:
        nonlocal ticks
        ticks += 1
        await sleep(0)  # the dispatcher runs
        if ticks == 20:
            raise Enough

    sleep = asyncio.sleep
    for owner, name in (
        (rig.table, "in_state"),
        (rig.table, "queued_models"),
        (rig.scheduler, "tell_waiting"),
    ):
        monkeypatch.setattr(owner, name, stumble)
    monkeypatch.setattr("sdq.server.queue.scheduler.asyncio.sleep", count)
    dispatching = asyncio.create_task(rig.scheduler.run())
    monkeypatch.setattr(rig.scheduler, "_meet_running", lambda: sleep(0))
    with pytest.raises(Enough):
        await rig.scheduler.watch(NoRedis())  # type: ignore[arg-type]
    assert not dispatching.done()
    dispatching.cancel()
    await asyncio.wait({dispatching})
    assert len(caplog.messages) == 3


async def test_who_waits_for_a_job_whose_row_is_damaged_is_told_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    peer, other = ListeningPeer(), ListeningPeer("10.0.0.2")
    request = await rig.generate(peer, ONE)
    await rig.generate(other, MANY)
    (job_id,) = [waiting.job_id for waiting in request.waiting.values()]
    get_many = rig.table.get_many

    async def without_one(job_ids: Any) -> Any:
        return {found: job for found, job in (await get_many(job_ids)).items() if found != job_id}

    monkeypatch.setattr(rig.table, "get_many", without_one)
    await rig.scheduler.tell_waiting()
    (failure,) = peer.all(Failure)
    assert (failure.code, request.is_done) == ("stack", True)
    assert not other.all(Failure)
    assert {told.note for told in other.all(Progress)} != {""}


async def test_a_model_whose_table_is_damaged_holds_up_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.bring_worker()
    await rig.generate(ListeningPeer(), ONE)
    dispatch_next = rig.turns.dispatch_next

    async def two_models() -> list[str]:
        return ["another", "shapes"]

    async def damaged_for_one(model_id: str, limit: int) -> Any:
        if model_id == "another":
            raise StackError("the file is damaged")
        return await dispatch_next(model_id, limit)

    async def room(model_id: str) -> int:
        return 1

    monkeypatch.setattr(rig.table, "queued_models", two_models)
    monkeypatch.setattr(rig.turns, "dispatch_next", damaged_for_one)
    monkeypatch.setattr(rig.scheduler, "_room", room)
    with pytest.raises(StackError, match="damaged"):
        await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 1
