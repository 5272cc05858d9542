"""A worker that slept, and one whose line to Redis went dead without a word."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdq import broker
from sdq.broker import Begun, Drawn, Stopped
from sdq.stack.redis import RedisServer
from sdq.testing.cable import Cable

Start = Callable[..., Any]
Until = Callable[..., Any]


def begun(sender: Any, job_id: str) -> list[Any]:
    return [e for e in sender.events if isinstance(e, Begun) and e.job_id == job_id]


def test_a_worker_that_slept_drops_what_others_were_given(
    start_fake: Start, sender: Any, until: Until
) -> None:
    worker = start_fake("--seconds-per-step", "0.1")
    sender.send("job1", sender.spec(num_inference_steps=300))
    until(lambda: begun(sender, "job1"))
    worker.process.send_signal(signal.SIGSTOP)
    try:
        # What the server does when the heartbeats have run out.
        sender.client.delete(broker.heartbeat_key("fake-worker"))
        for job_id in ("job1", "job2"):
            sender.cancel(job_id, up_to=1)
        sender.send("job2")  # Redis gives it to the sleeper: it hangs in its connection
    finally:
        worker.process.send_signal(signal.SIGCONT)
    assert isinstance(sender.last_event("job1"), Stopped)
    assert isinstance(sender.last_event("job2"), Stopped)
    assert begun(sender, "job2") == []
    until(worker.is_ready)
    sender.send("job1", attempt=2)
    until(lambda: [e for e in sender.events if isinstance(e, Drawn) and e.attempt == 2])


@pytest.fixture
def cable(redis_url: str) -> Iterator[Cable]:
    port = int(redis_url.rsplit(":", 1)[1].partition("/")[0])
    with Cable(port) as cable:
        yield cable


def test_a_line_that_went_dead_is_given_up(
    start_fake: Start, sender: Any, until: Until, redis_url: str, cable: Cable
) -> None:
    address, _, rest = redis_url.rpartition(":")
    url = f"{address}:{cable.port}/{rest.partition('/')[2]}"
    worker = start_fake("--seconds-per-step", "0.05", url=url)
    sender.send("job1", sender.spec(num_inference_steps=40))
    until(lambda: begun(sender, "job1"))
    cable.cut()
    cable.mend()  # new lines work again, those from before stay dead
    sender.send("job2")
    assert isinstance(sender.last_event("job1"), Drawn)
    # job2 may be lost with the dead line; the server would send it again.
    until(lambda: _is_drawn(sender), "a job that is drawn over a new line")
    worker.ask_to_end()
    assert worker.end() == 0


def _is_drawn(sender: Any) -> bool:
    """Whether the worker takes new tasks: sends one each time."""
    sender.send(f"try{sender.client.incr('tries')}")
    time.sleep(0.2)
    return any(isinstance(event, Drawn) and event.job_id != "job1" for event in sender.events)


def test_redis_comes_back_empty(
    tmp_path: Path, start: Start, home: Any, until: Until, open_sender: Callable[[str], Any]
) -> None:
    folder = tmp_path / "redis"
    with RedisServer(folder) as first:
        url = first.url
        arguments = ("sdq.testing.worker", str(home.root), "--redis", url)
        worker = start(*arguments, worker_id="fake-worker", ready=False)
        worker.client = open_sender(url).client
        until(worker.is_ready)
    with RedisServer(folder) as second:
        assert second.url == url
        sender = open_sender(url)
        sender.client.flushall()
        worker.client = sender.client
        sender.send("job1")
        assert isinstance(sender.last_event("job1"), Drawn)
        until(worker.is_ready)
