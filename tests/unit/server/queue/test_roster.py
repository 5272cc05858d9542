"""Who is online, and the reason in words why a job waits."""

import msgspec
import pytest

from sdq.broker import WORKERS_SET
from sdq.server.catalog import Catalog
from sdq.server.queue.redis_link import connect
from sdq.server.queue.roster import MAX_HANDS, Roster
from sdq.testing.dispatch import heartbeat
from sdq.testing.rig import Clock

SHAPES = Catalog.load().manifest("shapes")
PRINT = SHAPES.fingerprint
OTHER = msgspec.structs.replace(SHAPES, model_id="other")


def test_the_window_counts_ready_holders_of_exactly_these_weights():
    roster = Roster(Clock())
    roster.update(
        [
            heartbeat(SHAPES, "a", concurrency=2),
            heartbeat(SHAPES, "b", concurrency=3, state="drawing"),
            heartbeat(SHAPES, "c", concurrency=5, state="loading"),
            heartbeat(SHAPES, "d", concurrency=7, state="stopping"),
            heartbeat(SHAPES, "e", concurrency=7, state="broken"),
        ]
    )
    assert roster.window("shapes", PRINT) == (2 + 1) + (3 + 1)
    assert [beat.worker_id for beat in roster.holders("shapes", PRINT)] == ["a", "b", "c"]
    assert [beat.worker_id for beat in roster.ready("shapes", PRINT)] == ["a", "b"]
    assert roster.window("shapes", "0" * 64) == 0
    assert roster.window("sdxl", PRINT) == 0


def test_the_reason_for_waiting_is_in_words():
    roster = Roster(Clock())
    assert roster.why_nobody("shapes", PRINT) == "no worker online holds 'shapes'"
    roster.update([heartbeat(SHAPES, "a", state="loading")])
    assert roster.why_nobody("shapes", PRINT) == "the model is loading on gpu-box"
    roster.update([heartbeat(SHAPES, "a")])
    assert roster.why_nobody("shapes", PRINT) == ""
    assert "another version" in roster.why_nobody("shapes", "0" * 64)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["stopping"], "all workers that hold 'shapes' are stopping"),
        (["broken", "broken"], "all workers that hold 'shapes' are broken"),
        (["broken", "stopping"], "all workers that hold 'shapes' are stopping or broken"),
        (["broken", "loading"], "the model is loading on gpu-box"),
    ],
)
def test_workers_that_leave_are_named_as_the_reason(states: list[str], words: str):
    roster = Roster(Clock())
    roster.update([heartbeat(SHAPES, f"w{i}", state=state) for i, state in enumerate(states)])
    assert roster.why_nobody("shapes", PRINT) == words


def test_a_change_is_somebody_coming_leaving_or_becoming_ready():
    roster = Roster(Clock())
    assert roster.update([heartbeat(SHAPES, "a", state="loading")])
    assert not roster.update([heartbeat(SHAPES, "a", state="loading", sent_at=1)])
    assert roster.update([heartbeat(SHAPES, "a", sent_at=2)])
    assert not roster.update([heartbeat(SHAPES, "a", state="drawing", sent_at=3)])
    assert roster.update([])


def test_a_worker_that_serves_other_models_than_before_is_a_change():
    roster = Roster(Clock())
    both = heartbeat(SHAPES, "a", others=[OTHER])
    roster.update([both])
    assert not roster.update([msgspec.structs.replace(both, loaded=("other",))])
    fewer = heartbeat(SHAPES, "a")
    assert roster.update([msgspec.structs.replace(fewer, failing=("other",))])
    assert roster.update([both])


def test_a_worker_of_several_models_has_a_window_for_each():
    roster = Roster(Clock())
    roster.update([heartbeat(SHAPES, "a", others=[OTHER], concurrency=3)])
    assert roster.window("shapes", PRINT) == roster.window("other", PRINT) == 4
    (status,) = roster.statuses()
    assert (status.models, status.loaded) == (("shapes", "other"), ("shapes",))


def test_a_model_that_cannot_be_loaded_is_named_as_the_reason():
    roster = Roster(Clock())
    beat = heartbeat(SHAPES, "a", note="other: out of memory")
    roster.update([msgspec.structs.replace(beat, failing=("other",))])
    assert roster.window("other", PRINT) == 0
    why = roster.why_nobody("other", PRINT)
    assert why == "worker a cannot load 'other'; `sdq workers` says why"


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


def test_heartbeats_are_counted_while_a_worker_is_online():
    roster = Roster(Clock())
    for sent_at in (1, 1, 2):
        roster.update([heartbeat(SHAPES, "a", sent_at=sent_at)])
    assert roster.beats_heard("a") == 2
    roster.update([])
    assert roster.beats_heard("a") == 0


def test_people_are_told_why_a_worker_is_broken():
    roster = Roster(Clock())
    roster.update([heartbeat(SHAPES, "a", state="broken", note="its canary came out black")])
    (status,) = roster.statuses()
    assert (status.state, status.note) == ("broken", "its canary came out black")


def test_a_worker_that_is_not_trusted_is_named_as_the_reason():
    clock = Clock()
    roster = Roster(clock)
    roster.update([heartbeat(SHAPES, "a", active=("job1",), sent_at=1.0)])
    roster.distrust("a", "job1")
    roster.distrust("gone", "job1")
    assert (roster.stuck_since("a"), roster.stuck_since("gone")) == (clock.now, None)
    assert roster.ready("shapes", PRINT) == []
    assert roster.why_nobody("shapes", PRINT) == "worker a does not get on with its picture"
    roster.update([heartbeat(SHAPES, "a", active=(), sent_at=2.0)])
    assert roster.stuck_since("a") is None
    assert roster.window("shapes", PRINT) == 3


def test_a_worker_that_says_it_has_a_million_hands_does_not_empty_the_queue_into_redis():
    roster = Roster(Clock())
    roster.update([heartbeat(SHAPES, "a", concurrency=1_000_000)])
    assert roster.window("shapes", PRINT) == MAX_HANDS + 1


async def test_a_name_that_is_none_is_taken_off_the_list(redis_url: str):
    """Whoever else writes into Redis must not end the server."""
    redis = connect(redis_url)
    await redis.zadd(WORKERS_SET, {b"\xff\xfe": 1.0})
    await Roster(Clock()).refresh(redis)
    assert await redis.zscore(WORKERS_SET, b"\xff\xfe") is None
    await redis.aclose()
