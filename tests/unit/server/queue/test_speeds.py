"""What is learnt of speeds, and how long a job has been silent."""

import msgspec
import pytest

from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.queue.job import Job
from sdq.server.queue.roster import Roster
from sdq.server.queue.speeds import MAX_MEASURED, News, Speeds
from sdq.spec import ImageSpec
from sdq.testing.dispatch import heartbeat
from sdq.testing.rig import Clock

SHAPES = Catalog.load().manifest("shapes")
SMALL = ImageSpec("a cat", "", "shapes", 500, 500, 20, 4.0, "ddim", 1)
LARGE = msgspec.structs.replace(SMALL, width=1_000, height=1_000, num_inference_steps=10)


def job(attempt: int = 1) -> Job:
    return Job(
        job_id="job1",
        key="a" * 64,
        spec=SMALL,
        fingerprint="f" * 64,
        state=JobState.RUNNING,
        attempt=attempt,
        keep=True,
        identity="me",
        created_at=0.0,
        dispatched_at=0.0,
        changed_at=None,
        worker_id="a",
        error_code="",
        error_message="",
        draw_seconds=None,
    )


def test_a_step_costs_time_in_proportion_to_its_pixels():
    speeds = Speeds(Roster(Clock()))
    speeds.learn("a", SMALL, 10.0)
    assert speeds.step_seconds("a", SMALL) == pytest.approx(0.5)
    assert speeds.step_seconds("a", LARGE) == pytest.approx(2.0)
    assert speeds.draw_seconds("a", LARGE) == pytest.approx(20.0)
    assert speeds.usual_seconds("a", LARGE) == pytest.approx(10.0)
    assert speeds.rest_seconds("a", SMALL, 15) == pytest.approx(2.5)


def test_a_picture_drawn_with_others_took_its_share_of_the_workers_time():
    roster = Roster(Clock())
    speeds = Speeds(roster)
    roster.update([heartbeat(SHAPES, "a", active=("j1", "j2", "j3", "j4", "j5"), at_once=4)])
    speeds.learn("a", SMALL, 10.0)
    assert speeds.usual_seconds("a", SMALL) == pytest.approx(2.5)  # the fifth only waited
    assert speeds.draw_seconds("a", SMALL) == pytest.approx(10.0)


def test_a_picture_drawn_beside_another_models_took_more_of_the_workers_time():
    roster, news = Roster(Clock()), News(clock=Clock())
    speeds = Speeds(roster)
    active = ("j1", "j2", "j3", "j4")
    roster.update([heartbeat(SHAPES, "a", active=active, at_once=4)])
    for number, model_id in enumerate(["shapes", "other", "other", "other", "third"]):
        spec = msgspec.structs.replace(SMALL, model=model_id)
        news.begun(msgspec.structs.replace(job(), job_id=f"j{number}", spec=spec))
    share = news.share_of("shapes", ("shapes", "other"))
    assert (share, news.share_of("shapes", ("shapes",))) == (0.25, 1.0)
    assert news.share_of("unheard", ("unheard", "other")) == 1.0
    speeds.learn("a", SMALL, 10.0, model_share=share)
    assert speeds.usual_seconds("a", SMALL) == pytest.approx(10.0)


def test_newer_pictures_count_more_and_one_odd_one_does_not_decide():
    speeds = Speeds(Roster(Clock()))
    speeds.learn("a", SMALL, 10.0)
    speeds.learn("a", SMALL, 20.0)
    assert 12 < (speeds.draw_seconds("a", SMALL) or 0) < 15
    for _ in range(12):
        speeds.learn("a", SMALL, 20.0)
    assert speeds.draw_seconds("a", SMALL) == pytest.approx(20, rel=0.02)


def test_before_the_first_picture_the_workers_own_word_counts():
    roster = Roster(Clock())
    speeds = Speeds(roster)
    assert speeds.step_seconds("a", SMALL) is None
    assert speeds.draw_seconds("a", SMALL) is None
    assert speeds.rest_seconds("a", SMALL, 3) is None
    roster.update([heartbeat(SHAPES, "a", seconds_per_step=0.25)])
    assert speeds.draw_seconds("a", SMALL) == pytest.approx(5.0)
    assert speeds.usual_seconds("a", SMALL) == pytest.approx(5.0)


def test_workers_are_measured_apart_and_not_without_end():
    speeds = Speeds(Roster(Clock()))
    speeds.learn("first", SMALL, 10.0)
    for number in range(MAX_MEASURED):
        speeds.learn(f"w{number}", SMALL, 1.0)
    assert speeds.step_seconds("first", SMALL) is None
    assert speeds.step_seconds("w0", SMALL) == pytest.approx(0.05)


def test_silence_counts_from_the_last_step_of_this_attempt():
    clock = Clock()
    news = News(clock=clock)
    news.begun(job())
    clock.now += 10
    assert news.stepped("job1", 1, 4) == SMALL
    clock.now += 3
    assert news.silent_seconds(job()) == 3
    assert news.steps["job1"] == 4
    assert news.stepped("job1", 1, 4) is None  # the same again
    assert news.stepped("job1", 2, 9) is None  # of another attempt
    assert news.stepped("other", 1, 1) is None
    assert news.silent_seconds(job()) == 3


def test_what_is_new_to_us_begins_now():
    clock = Clock()
    news = News(clock=clock)
    assert news.silent_seconds(job()) == 0
    assert news.worker_silent_seconds("a") == 0
    clock.now += 5
    assert news.silent_seconds(job()) == 5
    assert news.silent_seconds(job(attempt=2)) == 0
    assert news.worker_silent_seconds("a") == 5


def test_after_we_were_away_silence_counts_from_now():
    clock = Clock()
    news = News(clock=clock)
    news.begun(job())
    news.heard("a")
    clock.now += 100
    news.restart_clocks()
    assert news.silent_seconds(job()) == 0
    assert news.worker_silent_seconds("a") == 0


def test_jobs_that_are_over_are_forgotten():
    news = News(clock=Clock())
    news.begun(job())
    news.keep_only(["job1"])
    assert news.is_running("job1")
    news.keep_only([])
    assert not news.is_running("job1")
    assert news.steps == {}
