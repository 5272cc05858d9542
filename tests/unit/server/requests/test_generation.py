"""Requests against the library and the table: hits, misses, joins, refusals, cancelling."""

from pathlib import Path

import pytest

from sdq.errors import InvalidSpec, ServerBusy, UnknownModel
from sdq.protocol.messages import (
    Accepted,
    CachePolicy,
    Failure,
    Generate,
    Origin,
    Picture,
    Progress,
)
from sdq.protocol.states import JobState
from sdq.server.queue.subscriptions import Request
from sdq.spec import SpecDraft
from sdq.testing.dispatch import begun, drawn
from sdq.testing.rig import ListeningPeer, Rig, open_rig, png

CAT = SpecDraft("a cat")


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def test_a_new_picture_is_made_and_the_second_time_a_hit(rig: Rig):
    peer = ListeningPeer()
    await rig.generate(peer, Generate(1, CAT))
    await rig.draw_all()
    (accepted,) = peer.all(Accepted)
    (made,) = peer.all(Picture)
    assert accepted.pictures[0].cache is Origin.MADE
    assert (made.cache, made.remaining, made.image) == (Origin.MADE, 0, png())
    again = ListeningPeer()
    assert rig.generation.answer_from_memory(Generate(7, CAT), again)
    (hit,) = again.all(Picture)
    assert (hit.request_id, hit.cache, hit.key, hit.image) == (7, Origin.HIT, made.key, png())
    assert not again.all(Accepted)


async def test_a_hit_is_found_after_a_restart(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        await rig.generate(ListeningPeer(), Generate(1, CAT))
        await rig.draw_all()
    async with open_rig(tmp_path) as rig:
        peer = ListeningPeer()
        assert not rig.generation.answer_from_memory(Generate(2, CAT), peer)
        request = await rig.generate(peer, Generate(2, CAT))
        assert [picture.cache for picture in peer.all(Picture)] == [Origin.HIT]
        assert request.is_done


async def test_only_what_is_missing_is_made(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT, count=5))
    await rig.draw_all()
    peer = ListeningPeer()
    await rig.generate(peer, Generate(2, CAT, count=8))
    (accepted,) = peer.all(Accepted)
    assert [planned.cache for planned in accepted.pictures] == [Origin.HIT] * 5 + [Origin.MADE] * 3
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 3
    await rig.draw_all()
    assert sorted(picture.index for picture in peer.all(Picture)) == list(range(8))
    assert peer.all(Picture)[-1].remaining == 0


async def test_equal_requests_in_flight_are_one_job(rig: Rig):
    first, second = ListeningPeer(), ListeningPeer()
    await rig.generate(first, Generate(1, CAT))
    await rig.generate(second, Generate(1, CAT))
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 1
    await rig.draw_all()
    assert [picture.cache for picture in first.all(Picture)] == [Origin.MADE]
    assert [picture.cache for picture in second.all(Picture)] == [Origin.JOINED]


async def test_cancelling_mine_does_not_cancel_yours(rig: Rig):
    mine, yours = ListeningPeer(), ListeningPeer()
    request = await rig.generate(mine, Generate(1, CAT, count=2))
    await rig.generate(yours, Generate(1, CAT))
    await rig.scheduler.dispatch()
    running = rig.dispatcher.sent[0]
    await rig.outcomes.apply(begun(running))
    assert await rig.cancelling.cancel(request) == (1, 1)
    assert len(rig.dispatcher.stopped) == 1
    assert rig.dispatcher.stopped != [running.job_id]
    await rig.draw_all()
    assert len(yours.all(Picture)) == 1
    assert mine.all(Picture) == []


async def test_cancelled_while_its_jobs_are_committed_it_says_nothing_more(rig: Rig):
    peer = ListeningPeer()
    request = Request(1, peer, remaining=1)
    original = rig.table.add

    async def add_and_cancel(jobs, **limits):
        added = await original(jobs, **limits)
        await rig.cancelling.cancel(request)
        return added

    rig.table.add = add_and_cancel  # type: ignore[method-assign]
    await rig.generation.generate(Generate(1, CAT), request)
    assert peer.told == []
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []


async def test_cancelling_a_queued_job_asks_nothing_of_redis(rig: Rig):
    request = await rig.generate(ListeningPeer(), Generate(1, CAT))
    rig.dispatcher.is_away = True
    assert await rig.cancelling.cancel(request) == (1, 0)
    assert (await rig.table.counts()).get(JobState.QUEUED, 0) == 0


async def test_a_client_that_left_still_fills_the_library(rig: Rig):
    request = await rig.generate(ListeningPeer(), Generate(1, CAT))
    await rig.cancelling.leave(request)
    await rig.draw_all()
    assert rig.generation.answer_from_memory(Generate(1, CAT), ListeningPeer())


async def test_what_would_not_be_kept_is_stopped_when_its_client_leaves(rig: Rig):
    request = await rig.generate(ListeningPeer(), Generate(1, CAT, cache=CachePolicy.OFF))
    await rig.scheduler.dispatch()
    await rig.cancelling.leave(request)
    assert rig.dispatcher.stopped == [rig.dispatcher.sent[0].job_id]


async def test_cache_only_answers_from_the_library_or_not_at_all(rig: Rig):
    peer = ListeningPeer()
    request = await rig.generate(peer, Generate(1, CAT, cache=CachePolicy.ONLY))
    (failure,) = peer.all(Failure)
    assert (failure.code, failure.remaining) == ("not_in_library", 0)
    assert request.is_done
    assert sum((await rig.table.counts()).values()) == 0


async def test_cache_refresh_draws_again_and_replaces(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT))
    await rig.draw_all()
    peer = ListeningPeer()
    await rig.generate(peer, Generate(1, CAT, cache=CachePolicy.REFRESH))
    await rig.scheduler.dispatch()
    job = rig.dispatcher.take()
    newer = png(colour=(1, 2, 3))
    await rig.outcomes.apply(drawn(job, newer))
    assert peer.all(Picture)[0].image == newer
    hit = ListeningPeer()
    rig.generation.answer_from_memory(Generate(1, CAT), hit)
    assert hit.all(Picture)[0].image == newer


async def test_cache_off_keeps_nothing_and_joins_nobody(rig: Rig):
    first, second = ListeningPeer(), ListeningPeer()
    await rig.generate(first, Generate(1, CAT, cache=CachePolicy.OFF))
    await rig.generate(second, Generate(1, CAT, cache=CachePolicy.OFF))
    await rig.scheduler.dispatch()
    assert len(rig.dispatcher.sent) == 2
    await rig.draw_all()
    assert [len(peer.all(Picture)) for peer in (first, second)] == [1, 1]
    assert (await rig.library.stats()).pictures == 0


async def test_nobody_online_is_said_at_once_and_no_wait_refuses(rig: Rig):
    rig.roster.update([])
    waiting = ListeningPeer()
    await rig.generate(waiting, Generate(1, CAT))
    assert waiting.all(Progress)[0].note == "no worker online holds 'shapes'"
    hasty = ListeningPeer()
    await rig.generate(hasty, Generate(1, SpecDraft("a dog"), wait=False))
    (failure,) = hasty.all(Failure)
    assert failure.code == "no_worker"
    assert "sdq worker" in failure.hint
    rig.bring_worker()
    await rig.draw_all()
    assert len(waiting.all(Picture)) == 1


async def test_a_row_whose_file_is_gone_is_a_miss(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        peer = ListeningPeer()
        await rig.generate(peer, Generate(1, CAT, count=2))
        await rig.draw_all()
        lost = peer.all(Picture)[0].key
    next(tmp_path.rglob(f"{lost}*")).unlink()
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        peer = ListeningPeer()
        await rig.generate(peer, Generate(1, CAT, count=2))
        await rig.draw_all()
        found = {picture.index: picture.cache for picture in peer.all(Picture)}
        assert found == {0: Origin.MADE, 1: Origin.HIT}


async def test_limits_are_errors_with_numbers(tmp_path: Path):
    async with open_rig(tmp_path, max_count=4, max_queued_jobs=3) as rig:
        with pytest.raises(InvalidSpec, match="5 pictures in one request, the limit is 4"):
            await rig.generate(ListeningPeer(), Generate(1, CAT, count=5))
        with pytest.raises(ServerBusy, match="3 pictures are waiting"):
            await rig.generate(ListeningPeer(), Generate(1, CAT, count=4))
        with pytest.raises(UnknownModel, match="shapez"):
            await rig.generate(ListeningPeer(), Generate(1, SpecDraft("a", model="shapez")))
        assert sum((await rig.table.counts()).values()) == 0


async def test_a_picture_that_came_after_the_look_into_the_library_is_not_drawn_again(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT))
    late = ListeningPeer()
    original = rig.table.add

    async def finish_and_add(jobs, **limits):
        await rig.draw_all()
        return await original(jobs, **limits)

    rig.table.add = finish_and_add  # type: ignore[method-assign]
    request = await rig.generate(late, Generate(2, CAT))
    assert len(late.all(Picture)) == 1
    assert request.is_done
    await rig.scheduler.dispatch()
    assert rig.dispatcher.sent == []
