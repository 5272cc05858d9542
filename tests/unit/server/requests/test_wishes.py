"""Drafts as specs and keys, and how many of them are remembered."""

import pytest

from sdq.errors import InvalidSpec
from sdq.protocol.job_messages import Submit
from sdq.protocol.messages import Generate
from sdq.server.catalog import Catalog
from sdq.server.requests.wishes import Planner
from sdq.spec import SpecDraft

CAT = SpecDraft("a cat")


@pytest.fixture
def planner() -> Planner:
    return Planner(Catalog.load(), max_count=100)


def test_derived_seeds_do_not_depend_on_how_the_request_is_cut(planner: Planner):
    whole = planner.plan(Generate(1, CAT, count=4))
    part = planner.plan(Submit(1, CAT, count=2, first_index=2))
    assert [wish.key for wish in whole.wishes[2:]] == [wish.key for wish in part.wishes]
    assert len({wish.spec.seed for wish in whole.wishes}) == 4
    chosen = planner.plan(Generate(1, SpecDraft("a cat", seed=10), count=3))
    assert [wish.spec.seed for wish in chosen.wishes] == [10, 11, 12]


def test_too_many_pictures_are_refused_with_the_number():
    with pytest.raises(InvalidSpec, match="5 pictures in one request, the limit is 4"):
        Planner(Catalog.load(), max_count=4).plan(Generate(1, CAT, count=5))


def test_plans_in_memory_are_bounded_by_their_pictures(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdq.server.requests.wishes.MAX_REMEMBERED_PICTURES", 10)
    for number in range(8):
        planner.plan(Generate(1, SpecDraft(f"cat {number}"), count=3))
    assert sum(len(plan.wishes) for plan in planner._plans.values()) == 9
