"""Position, time and reason: what somebody who waits is told, and that it comes true."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.server.queue.job import Job
from sdq.server.queue.waiting import MAX_DEPTH, Why
from sdq.testing.dispatch import begun, drawn, heartbeat, stepped
from sdq.testing.orders import order
from sdq.testing.rig import Rig, open_rig, png


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path, max_queued_jobs=10_000) as rig:
        workers(rig, "gpu-1")
        yield rig


def workers(rig: Rig, *names: str, state: str = "ready", per_step: float | None = None) -> None:
    """Workers that hold the model that `order` asks for."""
    rig.clock.now += 1
    manifest = rig.catalog.manifest(None)
    beats = [
        heartbeat(manifest, name, state=state, sent_at=rig.clock.now, seconds_per_step=per_step)
        for name in names
    ]
    rig.roster.update(beats)


async def ask(
    rig: Rig, *orders: tuple[int, str], priority: Priority = Priority.NORMAL
) -> list[Job]:
    """One job for each number and person."""
    fingerprint = rig.catalog.manifest(None).fingerprint
    wanted = [
        msgspec.structs.replace(order(n, who, priority=priority), fingerprint=fingerprint)
        for n, who in orders
    ]
    return [job for job, _ in await rig.table.add(wanted)]


async def why(rig: Rig, job: Job) -> Why:
    now = await rig.table.get(job.job_id)
    assert now is not None
    return (await rig.waiting.explain([now]))[job.job_id]


async def test_those_who_are_first_wait_for_nobody(rig: Rig):
    (job,) = await ask(rig, (1, "me"))
    assert await why(rig, job) == Why(0, None, "")


async def test_what_an_engine_draws_at_once_is_not_ahead_of_each_other(rig: Rig):
    rig.clock.now += 1
    manifest = rig.catalog.manifest(None)
    beat = heartbeat(manifest, "gpu-1", at_once=3, concurrency=4, sent_at=rig.clock.now)
    rig.roster.update([beat])
    jobs = await ask(rig, *[(n, "me") for n in range(5)])
    assert [(await why(rig, job)).ahead for job in jobs] == [0, 0, 0, 1, 2]


async def test_in_ones_own_line_the_place_counts(rig: Rig):
    jobs = await ask(rig, *((n, "me") for n in range(4)))
    assert [(await why(rig, job)).ahead for job in jobs] == [0, 1, 2, 3]
    assert (await why(rig, jobs[3])).note == "3 ahead"


async def test_a_large_batch_of_another_delays_by_one_turn_each(rig: Rig):
    await ask(rig, *((n, "batch") for n in range(100)))
    mine = await ask(rig, (1_000, "me"), (1_001, "me"))
    # "batch" stands first by name: one of theirs before my first, two before my second.
    assert [(await why(rig, job)).ahead for job in mine] == [1, 3]


async def test_priority_orders_ones_own_line(rig: Rig):
    (low,) = await ask(rig, (1, "me"), priority=Priority.LOW)
    (high,) = await ask(rig, (2, "me"), priority=Priority.HIGH)
    assert (await why(rig, high)).ahead == 0
    assert (await why(rig, low)).ahead == 1


async def test_the_place_that_is_told_is_the_place_that_one_gets(rig: Rig):
    chance = random.Random(7)
    people = ["ann", "bob", "cid", "dan", "eve"]
    jobs: list[Job] = []
    for n in range(60):
        priority = chance.choice(list(Priority))
        jobs += await ask(rig, (n, chance.choice(people)), priority=priority)
    await rig.scheduler.dispatch()
    given = [rig.dispatcher.take() for _ in range(len(rig.dispatcher.sent))]
    await rig.outcomes.take_back(given[1], "its worker is gone")
    waiting = [now for job in jobs if (now := await rig.table.get(job.job_id)) is not None]
    waiting = [job for job in waiting if job.state is JobState.QUEUED]
    told = {job_id: one.ahead for job_id, one in (await rig.waiting.explain(waiting)).items()}
    served = await rig.turns.dispatch_next("shapes", 100)
    out = len(given) - 1
    assert told == {job.job_id: out + place for place, job in enumerate(served)}


async def test_what_is_drawn_and_given_out_goes_before(rig: Rig):
    jobs = await ask(rig, *((n, "me") for n in range(5)))
    await rig.scheduler.dispatch()
    running = rig.dispatcher.take()
    await rig.outcomes.apply(begun(running, "gpu-1"))
    assert [(await why(rig, job)).ahead for job in jobs] == [None, 1, 2, 3, 4]
    await rig.outcomes.apply(drawn(running, png(), "gpu-1"))
    assert [(await why(rig, job)).ahead for job in jobs[1:]] == [0, 1, 2, 3]


async def test_further_workers_draw_beside(rig: Rig):
    workers(rig, "gpu-1", "gpu-2", "gpu-3")
    jobs = await ask(rig, *((n, "me") for n in range(5)))
    assert [(await why(rig, job)).ahead for job in jobs] == [0, 0, 0, 1, 2]


async def test_what_had_its_turn_goes_first(rig: Rig):
    mine = await ask(rig, *((n, "me") for n in range(4)))
    await rig.scheduler.dispatch()
    lost = rig.dispatcher.take()
    await rig.outcomes.take_back(lost, "its worker is gone")
    assert (await why(rig, lost)).ahead == 2  # the two others that were given out
    assert (await why(rig, mine[3])).ahead == 3


async def test_the_time_comes_from_what_was_measured(rig: Rig):
    jobs = await ask(rig, *((n, "me") for n in range(4)))
    assert (await why(rig, jobs[3])).eta_seconds is None
    rig.speeds.learn("gpu-1", jobs[0].spec, 10.0)
    assert (await why(rig, jobs[0])).eta_seconds == pytest.approx(10.0)
    assert (await why(rig, jobs[3])).eta_seconds == pytest.approx(40.0)
    workers(rig, "gpu-1", "gpu-2")  # as fast as the other, as far as we know
    assert (await why(rig, jobs[3])).eta_seconds == pytest.approx(2 * 5.0 + 10.0)
    rig.speeds.learn("gpu-2", jobs[0].spec, 2.0)
    assert (await why(rig, jobs[3])).eta_seconds == pytest.approx(2 / (1 / 10 + 1 / 2) + 6.0, 0.1)


async def test_the_workers_own_word_counts_before_its_first_picture(rig: Rig):
    workers(rig, "gpu-1", per_step=0.5)
    (job,) = await ask(rig, (1, "me"))
    assert (await why(rig, job)).eta_seconds == pytest.approx(0.5 * job.spec.num_inference_steps)


async def test_while_it_is_drawn_the_steps_that_are_left_count(rig: Rig):
    (job,) = await ask(rig, (1, "me"))
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    rig.speeds.learn("gpu-1", job.spec, 10.0)
    await rig.outcomes.apply(begun(job, "gpu-1"))
    await rig.outcomes.apply(stepped(job, 5, "gpu-1"))
    assert rig.waiting.step_of(job.job_id) == 5
    left = 1 - 5 / job.spec.num_inference_steps
    assert await why(rig, job) == Why(None, pytest.approx(10.0 * left), "")


@pytest.mark.parametrize(
    ("state", "note"),
    [
        ("loading", "the model is loading on gpu-box"),
        ("stopping", "all workers that hold 'shapes' are stopping"),
    ],
)
async def test_when_nobody_takes_it_the_reason_is_said_and_no_time(rig: Rig, state: str, note: str):
    jobs = await ask(rig, (1, "me"), (2, "me"))
    rig.speeds.learn("gpu-1", jobs[0].spec, 10.0)
    workers(rig, "gpu-1", state=state)
    assert await why(rig, jobs[1]) == Why(1, None, note)


async def test_of_a_model_that_is_in_nobodys_memory_no_time_is_promised(rig: Rig):
    jobs = await ask(rig, (1, "me"), (2, "me"))
    rig.speeds.learn("gpu-1", jobs[0].spec, 10.0)
    rig.clock.now += 1
    manifest = rig.catalog.manifest(None)
    beat = heartbeat(manifest, "gpu-1", loaded=("other",), sent_at=rig.clock.now)
    rig.roster.update([beat])
    waits = "the model is not in memory on any worker; it is loaded when its turn comes"
    assert await why(rig, jobs[0]) == Why(0, None, waits)
    assert await why(rig, jobs[1]) == Why(1, None, f"1 ahead; {waits}")
    rig.roster.update([beat, heartbeat(manifest, "gpu-2", sent_at=rig.clock.now)])
    rig.speeds.learn("gpu-2", jobs[0].spec, 2.0)
    assert await why(rig, jobs[1]) == Why(1, pytest.approx(4.0), "1 ahead")


async def test_so_far_back_nobody_counts(rig: Rig):
    jobs = await ask(rig, *((n, "me") for n in range(MAX_DEPTH + 2)))
    assert (await why(rig, jobs[MAX_DEPTH - 1])).ahead == MAX_DEPTH - 1
    last = await why(rig, jobs[-1])
    assert last == Why(None, None, f"more than {MAX_DEPTH - 1} ahead")


async def test_many_people_at_once_are_all_told(rig: Rig):
    jobs = await ask(rig, *((n, f"person-{n:03}") for n in range(300)))
    whys = await rig.waiting.explain(jobs)
    assert [whys[job.job_id].ahead for job in jobs] == list(range(300))


async def test_of_a_job_that_its_first_asker_wants_no_more_nothing_new_is_said(rig: Rig):
    (mine,) = await ask(rig, (1, "me"))
    await ask(rig, (1, "you"))
    await rig.wants.withdraw("me", [mine.job_id])
    now = await rig.table.get(mine.job_id)
    assert now is not None
    assert await rig.waiting.explain([now]) == {}
