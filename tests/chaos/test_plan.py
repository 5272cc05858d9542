"""A plan is what its seed and its scale say."""

from collections import Counter

import pytest

from sdq.testing.chaos.plan import FULL, REAL, SHORT, Blow, Scale, Target, make_plan


@pytest.mark.parametrize("scale", [FULL, SHORT, REAL])
def test_the_same_seed_gives_the_same_plan(scale: Scale) -> None:
    assert make_plan(7, scale) == make_plan(7, scale)
    assert make_plan(7, scale) != make_plan(8, scale)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", [FULL, SHORT, REAL])
def test_a_plan_holds_what_its_scale_promises(scale: Scale, seed: int) -> None:
    plan = make_plan(seed, scale)
    wishes = Counter(plan.wishes())
    assert len(wishes) >= scale.pictures
    assert max(wishes.values()) > 1, "no two clients ask for the same"
    assert Counter((kill.target, kill.blow) for kill in plan.kills) == scale.kills
    assert {order.person for order in plan.orders} == set(range(scale.persons))
    assert sum(order.killed_after_seconds is not None for order in plan.orders) > 0
    assert all(len(set(order.prompts)) == len(order.prompts) for order in plan.orders)


def test_the_scales_are_as_large_as_they_must_be() -> None:
    assert FULL.persons >= 8
    assert SHORT.persons >= 8
    assert FULL.least_jobs >= 500
    assert FULL.total_kills >= 40
    assert FULL.workers >= 3
    assert {target for target, _ in FULL.kills} == set(Target)
    assert {blow for _, blow in FULL.kills} == set(Blow)
    assert SHORT.least_jobs >= 60
    assert SHORT.total_kills >= 6
    assert REAL.least_jobs >= 30
    assert REAL.total_kills >= 6
