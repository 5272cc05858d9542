"""A worker's life among jobs, signals and a Redis that comes and goes (fake pipeline)."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdq import broker
from sdq.broker import Begun, Broke, Drawn, Returned, Stopped
from sdq.stack.redis import RedisServer
from sdq.testing.worker import fake_manifest

Start = Callable[..., Any]
Until = Callable[..., Any]

QUEUE = broker.queue_of("shapes", fake_manifest().fingerprint)


def test_the_states_of_a_life(start_fake: Start, sender: Any, until: Until) -> None:
    worker = start_fake("--load-seconds", "0.5", "--seconds-per-step", "0.1", ready=False)
    until(lambda: (beat := worker.beat) and beat.state == "loading")
    until(worker.is_ready)
    assert sender.client.zrange(broker.WORKERS_SET, 0, -1) == [b"fake-worker"]
    sender.send("job1", sender.spec(num_inference_steps=10))
    until(lambda: (beat := worker.beat) and beat.active == ("job1",) and beat.state == "drawing")
    worker.ask_to_end()
    until(lambda: (beat := worker.beat) and beat.state == "stopping")
    assert worker.end() == 0
    assert isinstance(sender.last_event("job1"), Drawn)
    assert worker.beat is None
    assert sender.client.zrange(broker.WORKERS_SET, 0, -1) == []
    assert "stopped" in worker.lines[-1]


def test_many_jobs_go_through_without_pauses(start_fake: Start, sender: Any) -> None:
    """With nothing prefetched, the loop must be woken for the next job."""
    start_fake("--concurrency", "2")
    names = [f"job{number}" for number in range(100)]
    began = time.monotonic()
    for number, name in enumerate(names):
        sender.send(name, sender.spec(seed=number))
    for name in names:
        assert isinstance(sender.last_event(name), Drawn)
    # 30 s when each pair waits for Celery's next look, half a second when it does not.
    assert time.monotonic() - began < 20


def test_jobs_wait_in_redis_and_not_in_the_worker(
    start_fake: Start, sender: Any, until: Until
) -> None:
    worker = start_fake("--seconds-per-step", "0.2", "--concurrency", "2")
    for number in range(6):
        sender.send(f"job{number}", sender.spec(seed=number))
    until(lambda: len(worker.beat.active) == 2)
    assert sender.client.llen(QUEUE) == 4
    assert sender.client.keys("unacked*") == []
    until(lambda: [event for event in sender.events if isinstance(event, Begun)])
    worker.ask_to_end()
    assert worker.end() == 0
    assert sender.client.llen(QUEUE) == 4
    ends = [event for event in sender.events if not isinstance(event, Begun)]
    assert [type(end) for end in ends] == [Returned, Drawn]


def test_a_worker_that_draws_several_at_once_says_so_and_does(
    start_fake: Start, sender: Any, until: Until
) -> None:
    """Nobody chose how many jobs it takes: as many as share a step, and some more."""
    worker = start_fake("--at-once", "4", "--concurrency", "0", "--seconds-per-step", "0.1")
    assert worker.beat.concurrency == 5
    for number in range(6):
        sender.send(f"job{number}", sender.spec(seed=number, num_inference_steps=40))
    until(lambda: len(worker.beat.active) == 5)
    until(lambda: len([event for event in sender.events if isinstance(event, Begun)]) == 4)
    sender.cancel("job1")
    assert isinstance(sender.last_event("job1"), Stopped)
    until(lambda: len([event for event in sender.events if isinstance(event, Begun)]) == 5)
    until(lambda: "job5" in worker.beat.active)
    worker.ask_to_end()
    assert worker.end() == 0
    ends = [type(event) for event in sender.events if not isinstance(event, Begun)]
    assert sorted(end.__name__ for end in ends) == ["Drawn"] * 4 + ["Returned", "Stopped"]
    assert sender.client.llen(QUEUE) == 0


def test_a_signal_while_the_model_loads(start_fake: Start) -> None:
    worker = start_fake("--load-seconds", "2", ready=False)
    while not worker.lines:
        time.sleep(0.01)
    time.sleep(0.2)
    worker.ask_to_end()
    assert worker.end() == 0


def test_bad_payloads_and_failures_do_not_stop_it(start_fake: Start, sender: Any) -> None:
    worker = start_fake("--fail-on", "bad", "--out-of-memory-on", "huge")
    sender.send_raw([{"job_id": "../x"}])
    sender.send_raw([])
    sender.send_raw([b"\x00" * 100, 5])
    sender.send("job1", sender.spec(prompt="bad"))
    sender.send("job2", sender.spec(prompt="huge"))
    sender.send("job3", sender.spec(prompt="good"))
    first, second = sender.last_event("job1"), sender.last_event("job2")
    assert isinstance(first, Broke)
    assert isinstance(second, Broke)
    assert (first.code, first.retryable) == ("generation_failed", True)
    assert (second.code, second.retryable) == ("out_of_memory", True)
    assert isinstance(sender.last_event("job3"), Drawn)
    assert len([line for line in worker.lines if "cannot be read" in line]) == 3
    assert not [line for line in worker.lines if "Traceback" in line]


def test_a_picture_outlives_a_restart_of_redis(
    tmp_path: Path, start: Start, home: Any, until: Until
) -> None:
    from redis import Redis

    with RedisServer(tmp_path / "redis") as first:
        url = first.url
        with Redis.from_url(url) as client:
            arguments = ("sdq.testing.worker", str(home.root), "--redis", url)
            worker = start(
                *arguments, "--seconds-per-step", "0.1", worker_id="fake-worker", ready=False
            )
            worker.client = client
            until(worker.is_ready)
            _send(url, "job1", steps=10)
            until(lambda: worker.beat.active)
    until(lambda: any("does not answer" in line for line in worker.lines))
    with RedisServer(tmp_path / "redis") as second, Redis.from_url(second.url) as client:
        assert second.url == url
        until(lambda: "job1" in _drawn(client))
        _send(url, "job2", steps=2)  # and it takes new jobs
        until(lambda: "job2" in _drawn(client))
    worker.ask_to_end()  # Redis is away again
    assert worker.end() == 0
    assert len([line for line in worker.lines if "answers again" in line]) == 1
    assert not [line for line in worker.lines if "Traceback" in line]


def _send(url: str, job_id: str, *, steps: int) -> None:
    manifest = fake_manifest()
    spec = broker.ImageSpec("a cat", "", "shapes", 64, 64, steps, 4.0, "ddim", 1)
    task = broker.DrawTask(job_id, 1, "server1", spec, "a" * 64, manifest.fingerprint)
    app = broker.make_app(url)
    arguments = [broker.to_argument(task)]
    app.send_task(broker.DRAW_TASK, args=arguments, queue=QUEUE)
    app.close()


def _drawn(client: Any) -> list[str]:
    entries = client.xrange(broker.events_stream("server1"))
    events = [broker.read_event(fields[broker.EVENT_FIELD]) for _, fields in entries]
    return [event.job_id for event in events if isinstance(event, Drawn)]
