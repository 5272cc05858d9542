"""A worker whose pipeline gives no pictures any more takes itself out, and proves itself later."""

from collections.abc import Callable
from typing import Any

from sdq import broker
from sdq.broker import Begun, Broke, Drawn, Returned
from sdq.config import Home
from sdq.testing.worker import fake_manifest
from sdq.worker import canary

Start = Callable[..., Any]
Until = Callable[..., Any]
QUEUE = broker.queue_of("shapes", fake_manifest().fingerprint)


def test_a_picture_that_is_none_is_that_pictures_fault_when_the_proof_succeeds(
    start_fake: Start, sender: Any, home: Home
) -> None:
    start_fake("--nan-on", "strange")
    sender.send("job1", sender.spec(prompt="strange"))
    broke = sender.last_event("job1")
    assert isinstance(broke, Broke)
    assert not broke.retryable
    sender.send("job2")
    assert isinstance(sender.last_event("job2"), Drawn)
    assert not canary.is_marked(home)


def test_a_broken_worker_gives_all_back_and_says_so(
    start_fake: Start, sender: Any, until: Until, home: Home
) -> None:
    worker = start_fake("--seconds-per-step", "0.05", "--break-after", "2")
    for number in range(1, 7):
        sender.send(f"job{number}", sender.spec(seed=number))
    assert worker.end() == 1
    events = [event for event in sender.events if not isinstance(event, Begun)]
    assert isinstance(events[0], Drawn)
    returned = [event.job_id for event in events if isinstance(event, Returned)]
    assert len(returned) == len(events) - 1 >= 1
    assert len(returned) + sender.client.llen(QUEUE) == 5  # none is lost
    beat = worker.beat
    assert (beat.state, beat.active) == ("broken", ())
    assert "NaN" in beat.note
    assert "shapes fails its proof picture on fake" in worker.lines[-1]
    assert "sdq worker install" in worker.lines[-1]
    assert not [line for line in worker.lines if "Traceback" in line]
    assert canary.is_marked(home)


def test_the_next_start_proves_itself_first(
    start_fake: Start, sender: Any, until: Until, home: Home
) -> None:
    canary.mark(home, "NaN")
    sender.send("job1")
    worker = start_fake("--break-after", "1", ready=False)
    assert worker.end() == 1
    assert sender.events == []
    assert sender.client.llen(QUEUE) == 1
    assert canary.is_marked(home)

    sender.client.delete(broker.heartbeat_key("fake-worker"))
    again = start_fake()
    assert isinstance(sender.last_event("job1"), Drawn)
    assert not canary.is_marked(home)
    assert any("draws its proof picture first" in line for line in again.lines)
