"""How a worker ends: drained by a signal or a flag, hurried by a second signal."""

import signal
import time
from collections.abc import Callable
from typing import Any

from sdq import broker
from sdq.broker import Begun, Drawn, Returned

Start = Callable[..., Any]
Until = Callable[..., Any]


def send_two(sender: Any, until: Until, *, steps: int) -> None:
    """The first is begun, the second waits for the engine."""
    sender.send("job1", sender.spec(num_inference_steps=steps))
    until(lambda: [event for event in sender.events if isinstance(event, Begun)])
    sender.send("job2", sender.spec(num_inference_steps=steps, seed=8))


def ends(sender: Any) -> list[tuple[str, str]]:
    found = [event for event in sender.events if not isinstance(event, Begun)]
    return [(event.job_id, type(event).__name__) for event in found]


def test_a_signal_finishes_what_is_begun_and_gives_back_the_rest(
    start_fake: Start, sender: Any, until: Until
) -> None:
    worker = start_fake("--seconds-per-step", "0.1")
    send_two(sender, until, steps=40)
    until(lambda: len(worker.beat.active) == 2)
    worker.ask_to_end()
    returned = until(lambda: [e for e in sender.events if isinstance(e, Returned)])
    until(lambda: (beat := worker.beat) and (beat.state, beat.note) == ("stopping", "draining"))
    assert worker.end() == 0
    assert ends(sender) == [("job2", "Returned"), ("job1", "Drawn")]
    assert "draining" in returned[0].reason
    assert sender.last_event("job1").worker_id == "fake-worker"


def test_the_drain_flag_is_as_a_signal(start_fake: Start, sender: Any, until: Until) -> None:
    worker = start_fake("--seconds-per-step", "0.1")
    send_two(sender, until, steps=40)
    until(lambda: len(worker.beat.active) == 2)
    sender.client.set(broker.drain_flag("fake-worker"), 1)
    until(lambda: (beat := worker.beat) and beat.state == "stopping")
    assert worker.end() == 0
    assert ends(sender) == [("job2", "Returned"), ("job1", "Drawn")]
    assert not sender.client.exists(broker.drain_flag("fake-worker"))
    assert [line for line in worker.lines if "asks this worker to drain" in line]


def test_one_that_hangs_and_is_drained_ends_so_that_it_is_started_again(
    start_fake: Start, sender: Any, until: Until
) -> None:
    worker = start_fake("--seconds-per-step", "600", "--drain-seconds", "0.3")
    sender.send("job1", sender.spec(num_inference_steps=2))
    until(lambda: worker.beat.active)
    sender.client.set(broker.drain_flag("fake-worker"), 1)
    assert worker.end() == 1
    assert ends(sender) == [("job1", "Returned")]
    assert [line for line in worker.lines if "start it again" in line]


def test_a_new_start_takes_jobs_whatever_flag_is_left(start_fake: Start, sender: Any) -> None:
    sender.client.set(broker.drain_flag("fake-worker"), 1)
    start_fake()
    sender.send("job1")
    assert isinstance(sender.last_event("job1"), Drawn)


def test_the_time_to_finish_is_bounded(start_fake: Start, sender: Any, until: Until) -> None:
    worker = start_fake("--seconds-per-step", "0.5", "--drain-seconds", "0.3")
    send_two(sender, until, steps=400)
    worker.ask_to_end()
    assert worker.end() == 0
    assert sorted(ends(sender)) == [("job1", "Returned"), ("job2", "Returned")]


def test_a_second_signal_gives_all_back_at_once(
    start_fake: Start, sender: Any, until: Until
) -> None:
    worker = start_fake("--seconds-per-step", "0.5")
    send_two(sender, until, steps=400)
    worker.process.send_signal(signal.SIGINT)
    until(lambda: any("second signal" in line for line in worker.lines))
    time.sleep(0.6)  # closer together they count as one
    worker.process.send_signal(signal.SIGINT)
    assert worker.end() == 0
    assert sorted(ends(sender)) == [("job1", "Returned"), ("job2", "Returned")]


def test_a_second_signal_that_cannot_be_told(
    start_fake: Start, sender: Any, until: Until, tmp_path: Any
) -> None:
    """Redis refuses what comes: the server will miss the jobs by itself."""
    worker = start_fake("--seconds-per-step", "0.5", "--drain-seconds", "0.1")
    send_two(sender, until, steps=400)
    until(lambda: len(worker.beat.active) == 2)
    stream = broker.events_stream("server1")
    sender.client.delete(stream)
    sender.client.set(stream, "no stream")
    worker.ask_to_end()
    assert worker.end() == 1
    assert "did not take the end of 2" in worker.lines[-1]
