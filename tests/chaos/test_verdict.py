"""The judge of a chaos run sees each kind of fault: a proof that cannot fail proves nothing."""

from typing import Any

import pytest

from sdq.testing.chaos.killer import Deed
from sdq.testing.chaos.plan import Blow, Target


def test_a_run_without_fault_is_good(made_up: Any) -> None:
    verdict = made_up.judge()
    assert verdict.is_good, verdict.lines()
    assert verdict.first_line() == (
        "jobs 2, kills 0 (worker 0, server 0, redis 0), "
        "lost 0, drawn twice 0, wrong 0, worst recovery 0.0 s"
    )


@pytest.mark.parametrize("state", ["queued", "dispatched", "running", "failed", "cancelled"])
def test_a_job_that_did_not_succeed_is_lost(made_up: Any, state: str) -> None:
    made_up.add_job(0, "job9", state=state, error_code="generation_failed", error_message="bad")
    (case,) = made_up.judge().lost
    assert case == f"job job9 is {state} (generation_failed: bad)"


def test_a_job_that_was_told_and_is_unknown_is_lost(made_up: Any) -> None:
    made_up.sql("DELETE FROM jobs WHERE job_id = 'job1'")
    (case,) = made_up.judge().lost
    assert "job1" in case
    assert "in no table" in case


def test_a_job_told_for_another_picture_is_wrong(made_up: Any) -> None:
    made_up.sql("UPDATE jobs SET key = ? WHERE job_id = 'job1'", made_up.keys[0])
    verdict = made_up.judge()
    assert any("job1 was told as" in case for case in verdict.wrong)
    assert verdict.stored_twice == [f"{made_up.keys[0][:8]}, 2 times"]


def test_a_job_without_its_picture_is_lost(made_up: Any) -> None:
    made_up.sql("DELETE FROM pictures WHERE key = ?", made_up.keys[0])
    assert made_up.judge().lost == [f"job job0 succeeded without {made_up.keys[0][:8]}"]


def test_a_row_without_its_file_is_wrong_and_lost(made_up: Any) -> None:
    made_up.library_file.unlink()
    verdict = made_up.judge()
    assert len(verdict.wrong) == len(verdict.lost) == 1
    assert "No such file" in verdict.wrong[0]


def test_a_key_stored_by_two_jobs_is_stored_twice(made_up: Any) -> None:
    made_up.add_job(0, "hit", attempt=0)  # answered from the library: nothing was stored
    assert made_up.judge().is_good
    made_up.add_job(0, "job9")
    verdict = made_up.judge()
    assert not verdict.is_good
    assert verdict.stored_twice == [f"{made_up.keys[0][:8]}, 2 times"]


@pytest.mark.parametrize("place", ["library_file", "client_file"])
def test_pixels_of_another_picture_are_wrong(made_up: Any, png: Any, place: str) -> None:
    first, second = made_up.specs
    getattr(made_up, place).write_bytes(png(first, drawn_for=second))
    assert any("differs by" in case for case in made_up.judge().wrong)


@pytest.mark.parametrize("place", ["library_file", "client_file"])
def test_the_picture_of_another_key_is_wrong(made_up: Any, png: Any, place: str) -> None:
    getattr(made_up, place).write_bytes(png(made_up.specs[1]))
    assert any("says that it is" in case for case in made_up.judge().wrong)


def test_a_spec_that_does_not_give_the_key_is_wrong(made_up: Any, png: Any) -> None:
    made_up.client_file.write_bytes(png(made_up.specs[1], key=made_up.keys[0]))
    assert any("says that it is" in case for case in made_up.judge().wrong)


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 0.9])
def test_half_a_file_is_wrong(made_up: Any, kept_share: float) -> None:
    data = made_up.client_file.read_bytes()
    made_up.client_file.write_bytes(data[: int(len(data) * kept_share)])
    assert len(made_up.judge().wrong) == 1


def test_a_request_that_ends_without_a_picture_lost_it(made_up: Any) -> None:
    made_up.client_file.unlink()
    made_up.outcome.exit_code = 1
    assert made_up.judge().lost == ["request 000 ended with 1 without 'a cat'"]
    made_up.outcome.exit_code = None
    assert made_up.judge().lost == ["request 000 never ended without 'a cat'"]


def test_a_request_that_fails_with_all_its_pictures_is_a_fault_too(made_up: Any) -> None:
    made_up.outcome.exit_code = 1
    assert made_up.judge().lost == ["request 000 ended with 1, with all its pictures"]


def test_nobody_waits_for_what_a_killed_client_wanted_but_the_library(made_up: Any) -> None:
    made_up.client_file.unlink()
    made_up.outcome.exit_code = None
    made_up.outcome.was_killed = True
    assert made_up.judge().is_good
    made_up.library_file.unlink()
    assert not made_up.judge().is_good


def test_drawings_beyond_the_first_of_a_key_are_counted(made_up: Any) -> None:
    with (made_up.root / "drawn.log").open("a") as log:
        log.write(f"{made_up.keys[0]} again\n{made_up.keys[0]} again\n")
    verdict = made_up.judge()
    assert verdict.drawn_twice == 2
    assert verdict.is_good


def test_a_real_worker_s_log_tells_what_was_drawn(made_up: Any) -> None:
    (made_up.root / "drawn.log").unlink()
    said = "16:17:35 worker: job job0 is drawn, 0.32 s\n" * 3 + "16:17:36 worker: loading\n"
    (made_up.root / "worker.log").write_text(said)
    assert made_up.judge().drawn_twice == 2
    (made_up.root / "worker.log").write_text("")
    assert "drawn twice unknown" in made_up.judge().first_line()


def test_recovery_is_until_the_first_picture_that_was_waited_for(made_up: Any) -> None:
    made_up.sql("UPDATE jobs SET created_at = 10, changed_at = 19.5 WHERE job_id = 'job0'")
    made_up.sql("UPDATE jobs SET created_at = 16, changed_at = 17.0 WHERE job_id = 'job1'")
    killed = Deed("worker-1", Target.WORKER, Blow.KILLED, 15.0, 30.0, ("job0", "gone"))
    stopped = Deed("redis", Target.REDIS, Blow.STOPPED, 16.2, 18.2, ())
    idle = Deed("server", Target.SERVER, Blow.KILLED, 20.0, 21.0, ())
    verdict = made_up.judge(deeds=[killed, stopped, idle])
    # 4.5 s, less the 2.0 s for which somebody else held back Redis.
    assert verdict.first_line() == (
        "jobs 2, kills 3 (worker 1, server 1, redis 1), "
        "lost 0, drawn twice 0, wrong 0, worst recovery 2.5 s"
    )
    assert "redis stopped 1.3 s, server killed 0.0 s, worker killed 2.5 s" in verdict.lines()[1]
    assert "stored: 2.5 s" in verdict.lines()[1]


def test_pauses_that_overlap_count_once(made_up: Any) -> None:
    made_up.sql("UPDATE jobs SET created_at = 0, changed_at = 20")
    killed = Deed("worker-1", Target.WORKER, Blow.KILLED, 5.0, 6.0, ())
    pauses = [
        Deed("redis", Target.REDIS, Blow.STOPPED, begin, end, ())
        for begin, end in ((1.0, 6.0), (8.0, 12.0), (9.0, 11.0), (10.0, 14.0), (19.0, 30.0))
    ]
    verdict = made_up.judge(deeds=[killed, *pauses])
    assert verdict.recoveries[0].seconds == pytest.approx(2.0 + 5.0)
