"""Counting: right, and of a bounded size."""

import pytest

from sdq.server.catalog import Catalog
from sdq.server.queue.roster import Roster
from sdq.server.tallies import HIT_SECONDS, MAX_EVENTS, MAX_LABELS, OTHER, Tallies
from sdq.testing.dispatch import heartbeat
from sdq.testing.rig import Clock


def test_many_models_are_counted_together() -> None:
    tallies = Tallies()
    for number in range(MAX_LABELS + 50):
        tallies.picture_drawn(f"model-{number}", "w", 1.0)
    assert len(tallies.drawn) == MAX_LABELS + 1
    assert tallies.drawn[OTHER] == 50
    assert sum(tallies.drawn.values()) == MAX_LABELS + 50
    assert len(tallies.events) == MAX_EVENTS


def test_each_answer_is_in_one_bucket() -> None:
    tallies = Tallies()
    for seconds in (0.0, HIT_SECONDS[0], 0.003, 999.0):
        tallies.answered(seconds)
    assert tallies.hit_counts[0] == 2  # the upper edge belongs to the bucket
    assert tallies.hit_counts[-1] == 1
    assert sum(tallies.hit_counts) == 4
    assert tallies.hit_seconds_sum == pytest.approx(999.0031)


def test_workers_come_and_go() -> None:
    clock = Clock()
    tallies = Tallies(clock)
    roster = Roster(clock, tallies)
    shapes = Catalog.load().manifest("shapes")
    beats = [heartbeat(shapes, name) for name in ("b", "a")]
    roster.update(beats)
    roster.update(beats)
    roster.update(beats[:1])
    said = [(event.what, event.worker_id) for event in tallies.events]
    assert said == [("online", "a"), ("online", "b"), ("offline", "a")]
