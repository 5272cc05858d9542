"""Who wants to see a picture grow: workers are told, others are not bothered."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdq.protocol.constants import MAX_PREVIEW_BYTES
from sdq.protocol.messages import Generate, Picture, Progress
from sdq.server.queue.dispatch import RedisGone
from sdq.server.queue.previews import MAX_FLAGS, RENEW_SECONDS, PreviewWishes, sound_preview
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, drawn, returned, stepped
from sdq.testing.rig import Clock, ListeningPeer, Rig, open_rig, png

JPEG = b"\xff\xd8\xff" + b"grey" + b"\xff\xd9"
WATCHED = Generate(1, SpecDraft("a cat"), preview=True)
PLAIN = Generate(2, SpecDraft("a cat"))


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


def previews(peer: ListeningPeer) -> list[tuple[int, bytes]]:
    return [(news.step, news.preview) for news in peer.all(Progress) if news.preview]


# ------------------------------------------------------------------ who is told


async def test_previews_go_to_those_who_asked(rig: Rig):
    watching, waiting = ListeningPeer(), ListeningPeer("10.0.0.2")
    await rig.generate(watching, WATCHED)
    await rig.generate(waiting, PLAIN)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(stepped(job, 3, preview=JPEG))
    await rig.outcomes.apply(stepped(job, 4))
    assert previews(watching) == [(3, JPEG)]
    assert previews(waiting) == []
    for peer in (watching, waiting):
        assert [news.step for news in peer.all(Progress)][-2:] == [3, 4]


async def test_a_preview_of_a_step_that_was_told_before(rig: Rig):
    peer = ListeningPeer()
    await rig.generate(peer, WATCHED)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(stepped(job, 3))
    await rig.outcomes.apply(stepped(job, 3, preview=JPEG))
    await rig.outcomes.apply(stepped(job, 2, preview=JPEG))  # of a moment that is over
    assert previews(peer) == [(3, JPEG)]


async def test_previews_of_an_attempt_that_was_given_up_are_dropped(rig: Rig):
    peer = ListeningPeer()
    await rig.generate(peer, WATCHED)
    await rig.scheduler.dispatch()
    first = rig.dispatcher.take()
    await rig.outcomes.apply(begun(first))
    await rig.outcomes.apply(returned(first))
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(begun(rig.dispatcher.take()))
    await rig.outcomes.apply(stepped(first, 7, preview=JPEG))
    assert previews(peer) == []


async def test_a_slow_reader_gets_none_and_still_hears_of_the_steps(rig: Rig):
    peer = ListeningPeer()
    await rig.generate(peer, WATCHED)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    peer.is_behind = True
    await rig.outcomes.apply(stepped(job, 3, preview=JPEG))
    peer.is_behind = False
    await rig.outcomes.apply(stepped(job, 4, preview=JPEG))
    assert previews(peer) == [(4, JPEG)]
    assert [news.step for news in peer.all(Progress)][-2:] == [3, 4]


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\xff\xd8\xff", b"<html>", JPEG[:-1], b"\x89PNG", JPEG[:-2] + bytes(MAX_PREVIEW_BYTES)],
)
async def test_what_is_no_preview_is_dropped_and_the_step_is_not(rig: Rig, rubbish: bytes):
    peer = ListeningPeer()
    await rig.generate(peer, WATCHED)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    await rig.outcomes.apply(stepped(job, 3, preview=rubbish))
    assert previews(peer) == []
    assert peer.all(Progress)[-1].step == 3
    await rig.outcomes.apply(drawn(job, png()))
    assert len(peer.all(Picture)) == 1


def test_a_real_jpeg_is_sound():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "JPEG")
    assert sound_preview(buffer.getvalue()) == buffer.getvalue()


# ------------------------------------------------------------------ what workers are told


async def test_workers_are_told_when_the_job_is_given_out(rig: Rig):
    await rig.generate(ListeningPeer(), WATCHED)
    assert rig.subscriptions.wishes.take_due() == []  # it waits: nothing is to be seen
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    assert rig.subscriptions.wishes.take_due() == [job.job_id]
    assert rig.subscriptions.wishes.take_due() == []


async def test_nobody_wants_to_see_it_and_nobody_is_told(rig: Rig):
    await rig.generate(ListeningPeer(), PLAIN)
    await rig.scheduler.dispatch()
    await rig.outcomes.apply(begun(rig.dispatcher.take()))
    assert rig.subscriptions.wishes.take_due() == []


async def test_who_joins_a_running_job_is_heard(rig: Rig):
    await rig.generate(ListeningPeer(), PLAIN)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    await rig.outcomes.apply(begun(job))
    joined, attached = ListeningPeer(), ListeningPeer()
    await rig.generate(joined, WATCHED)
    assert rig.subscriptions.wishes.take_due() == [job.job_id]
    await rig.attach(attached, job.job_id, preview=True)
    assert rig.subscriptions.wishes.take_due() == [job.job_id]
    await rig.outcomes.apply(stepped(job, 3, preview=JPEG))
    assert previews(joined) == previews(attached) == [(3, JPEG)]


async def test_the_wish_ends_with_the_last_one_who_has_it(rig: Rig):
    first = await rig.generate(ListeningPeer(), WATCHED)
    second = await rig.generate(ListeningPeer("10.0.0.2"), WATCHED)
    await rig.generate(ListeningPeer("10.0.0.3"), PLAIN)
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    wishes = rig.subscriptions.wishes
    await rig.cancelling.cancel(first)
    assert job.job_id in wishes
    await rig.cancelling.cancel(second)
    assert job.job_id not in wishes
    assert wishes.take_due() == []


async def test_a_picture_that_came_leaves_nothing_behind(rig: Rig):
    await rig.generate(ListeningPeer(), WATCHED)
    await rig.draw_all()
    wishes = rig.subscriptions.wishes
    assert wishes.take_due() == []
    assert not wishes._wishes
    assert not wishes._told_at


def test_flags_are_renewed_while_somebody_wants_them():
    clock = Clock()
    wishes = PreviewWishes(clock)
    wishes.add("job1")
    wishes.given_out(["job1", "job2"])
    assert wishes.take_due() == ["job1"]
    clock.now += RENEW_SECONDS - 0.1
    assert wishes.take_due() == []
    clock.now += 0.2
    assert wishes.take_due() == ["job1"]
    wishes.drop("job1")
    clock.now += 3 * RENEW_SECONDS
    assert wishes.take_due() == []


def test_very_many_are_told_in_parts():
    wishes = PreviewWishes()
    names = [f"job{number}" for number in range(MAX_FLAGS + 5)]
    for name in names:
        wishes.add(name)
    wishes.given_out(names)
    assert wishes.take_due() == names[:MAX_FLAGS]
    assert wishes.take_due() == names[MAX_FLAGS:]


async def test_redis_may_be_away_for_a_while(caplog: pytest.LogCaptureFixture):
    clock, told = Clock(), []
    wishes, heard = PreviewWishes(clock), asyncio.Event()
    is_away = True

    async def show(job_ids: Sequence[str]) -> None:
        heard.set()
        if is_away:
            raise RedisGone("Redis does not answer")
        told.extend(job_ids)

    running = asyncio.create_task(wishes.run(show))
    try:
        for away in (True, False):
            is_away = away
            heard.clear()
            wishes.add("job1")
            wishes.given_out(["job1"])
            async with asyncio.timeout(5):
                await heard.wait()
        await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert told == ["job1"]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "asking workers for previews: Redis does not answer"
    ]
