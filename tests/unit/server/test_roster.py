"""Who is online, and the reason in words why a job waits."""

from sdq.server.catalog import Catalog
from sdq.server.roster import Roster
from sdq.testing.dispatch import heartbeat
from sdq.testing.rig import Clock

SHAPES = Catalog.load().manifest("shapes")


def test_capacity_counts_ready_holders_of_exactly_these_weights():
    roster = Roster(Clock())
    roster.update(
        [
            heartbeat(SHAPES, "a", concurrency=2),
            heartbeat(SHAPES, "b", concurrency=3, state="drawing"),
            heartbeat(SHAPES, "c", concurrency=5, state="loading"),
            heartbeat(SHAPES, "d", concurrency=7, state="stopping"),
        ]
    )
    assert roster.capacity("shapes", SHAPES.fingerprint) == 5
    assert [beat.worker_id for beat in roster.holders("shapes", SHAPES.fingerprint)] == [
        "a",
        "b",
        "c",
    ]
    assert roster.capacity("shapes", "0" * 64) == 0
    assert roster.capacity("sdxl", SHAPES.fingerprint) == 0


def test_the_reason_for_waiting_is_in_words():
    roster = Roster(Clock())
    print_ = SHAPES.fingerprint
    assert roster.why_waiting("shapes", print_, 0) == "no worker online holds 'shapes'"
    roster.update([heartbeat(SHAPES, "a", state="loading")])
    assert roster.why_waiting("shapes", print_, 0) == "the model is loading on gpu-box"
    roster.update([heartbeat(SHAPES, "a")])
    assert roster.why_waiting("shapes", print_, 0) == ""
    assert roster.why_waiting("shapes", print_, 3) == "3 ahead"
    assert "another version" in roster.why_waiting("shapes", "0" * 64, 0)


def test_a_change_is_somebody_coming_leaving_or_becoming_ready():
    roster = Roster(Clock())
    assert roster.update([heartbeat(SHAPES, "a", state="loading")])
    assert not roster.update([heartbeat(SHAPES, "a", state="loading", sent_at=1)])
    assert roster.update([heartbeat(SHAPES, "a", sent_at=2)])
    assert not roster.update([heartbeat(SHAPES, "a", state="drawing", sent_at=3)])
    assert roster.update([])


def test_age_counts_from_the_last_new_heartbeat():
    clock = Clock()
    roster = Roster(clock)
    roster.update([heartbeat(SHAPES, "a", sent_at=1)])
    clock.now += 5
    roster.update([heartbeat(SHAPES, "a", sent_at=1)])
    assert roster.heard_seconds_ago("a") == 5
    (status,) = roster.statuses()
    assert (status.worker_id, status.models, status.seen_seconds_ago) == ("a", ("shapes",), 5.0)
    roster.update([heartbeat(SHAPES, "a", sent_at=2)])
    assert roster.heard_seconds_ago("a") == 0
