"""Foreseeing: what would become of requests, and nothing is changed by asking."""

from pathlib import Path

import pytest

from sdq.errors import UsageError
from sdq.protocol.job_messages import Foresee, Intent
from sdq.protocol.messages import Generate, Origin
from sdq.spec import SpecDraft
from sdq.testing.rig import ListeningPeer, Rig, open_rig

CAT, DOG = SpecDraft("a cat"), SpecDraft("a dog")


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


async def foreseen(rig: Rig, *intents: Intent):
    return (await rig.foresight.foresee(Foresee(9, intents))).outlooks


async def test_hits_pictures_in_flight_and_new_ones(rig: Rig):
    await rig.generate(ListeningPeer(), Generate(1, CAT, count=2))
    await rig.draw_all()
    (job_id,) = await rig.submit(DOG)
    before = await rig.table.counts()
    cats, dogs = await foreseen(rig, Intent(CAT, 3), Intent(DOG, 1))
    assert [one.cache for one in cats.pictures] == [Origin.HIT, Origin.HIT, Origin.MADE]
    assert [one.index for one in cats.pictures] == [0, 1, 2]
    assert [(one.cache, one.job_id) for one in dogs.pictures] == [(Origin.JOINED, job_id)]
    assert await rig.table.counts() == before
    peer = ListeningPeer()
    await rig.generate(peer, Generate(1, CAT, count=3))
    (promised,) = [one for one in peer.told if hasattr(one, "pictures")]
    assert [one.key for one in promised.pictures] == [one.key for one in cats.pictures]


async def test_what_is_wrong_with_one_stays_with_it(rig: Rig):
    nosuch, huge, cat = await foreseen(
        rig, Intent(SpecDraft("x", model="nosuch")), Intent(CAT, count=101), Intent(CAT, 1, 7)
    )
    assert (nosuch.code, nosuch.pictures) == ("unknown_model", ())
    assert "nosuch" in nosuch.message
    assert nosuch.hint
    assert "the limit is 100" in huge.message
    assert [one.index for one in cat.pictures] == [7]


async def test_too_many_pictures_at_once(rig: Rig):
    with pytest.raises(UsageError, match="1001 pictures"):
        await foreseen(rig, *[Intent(CAT, 91)] * 11)


async def test_who_draws_and_how_long_it_takes(rig: Rig):
    small = SpecDraft("x", width=64, height=64, num_inference_steps=10)
    (first,) = await foreseen(rig, Intent(small))
    assert (first.workers, first.note) == (1, "")
    rig.speeds.learn("worker-1", first.pictures[0].spec, 0.5)
    (again,) = await foreseen(rig, Intent(small))
    assert again.picture_seconds == 0.5
    (more,) = await foreseen(
        rig, Intent(SpecDraft("x", width=64, height=64, num_inference_steps=40))
    )
    assert more.picture_seconds == 2.0
    rig.roster.update([])
    (nobody,) = await foreseen(rig, Intent(small))
    assert (nobody.workers, nobody.picture_seconds) == (0, None)
    assert "no worker online" in nobody.note


async def test_pictures_that_are_drawn_together_share_the_workers_time(rig: Rig):
    rig.bring_worker(active=("job-1", "job-2"), at_once=2)
    (outlook,) = await foreseen(rig, Intent(CAT))
    rig.speeds.learn("worker-1", outlook.pictures[0].spec, 4.0)
    (outlook,) = await foreseen(rig, Intent(CAT))
    assert outlook.picture_seconds == pytest.approx(2.0)
