"""A worker of several models with room for one of them: who waits, who is given back."""

from collections.abc import Callable
from typing import Any

import msgspec

from sdq import broker
from sdq.broker import Begun, Drawn, Returned
from sdq.testing.worker import fake_manifest

Start = Callable[..., Any]
Until = Callable[..., Any]

FINGERPRINT = fake_manifest().fingerprint
WORKER = (
    *("--model", "shapes", "--model", "other", "--model", "third"),
    *("--fit-in-memory", "1", "--fail-load", "third", "--seconds-per-step", "0.02"),
    *("--drain-seconds", "0"),
)


def send(sender: Any, job_id: str, model_id: str, steps: int = 4) -> None:
    spec = sender.spec(model=model_id, num_inference_steps=steps, seed=len(job_id))
    sender.manifest = msgspec.structs.replace(sender.manifest, model_id=model_id)
    sender.send(job_id, spec)


def test_a_life_with_three_models(start_fake: Start, sender: Any, until: Until) -> None:
    worker = start_fake(*WORKER)
    assert any("is ready: shapes, other, third on fake" in line for line in worker.lines)

    # One that cannot be loaded: its job goes back, and then none is taken.
    send(sender, "lost", "third")
    returned = sender.last_event("lost")
    assert isinstance(returned, Returned)
    assert "third cannot be loaded here: the fake model was told not to load" in returned.reason
    until(lambda: worker.beat.failing == ("third",))
    assert [held.model_id for held in worker.beat.models] == ["shapes", "other"]
    assert worker.beat.note == "third: the fake model was told not to load"
    for number in range(2):  # a question that Redis was asked before may still take one
        send(sender, f"stays{number}", "third")

    # With nothing else to do the model that is asked for comes at once.
    send(sender, "swift", "other")
    assert isinstance(sender.last_event("swift"), Drawn)
    until(lambda: worker.beat.loaded == ("other",))

    # While it works, one job of another model knocks, and the rest stays in Redis.
    send(sender, "long", "other", steps=500)
    until(lambda: "long" in worker.beat.active)
    for number in range(3):
        send(sender, f"knock{number}", "shapes")
    until(lambda: "knock0" in worker.beat.active, "a job that knocks")
    queue = broker.queue_of("shapes", FINGERPRINT)
    assert sender.client.llen(queue) == 2
    assert worker.beat.loaded == ("other",)

    # At the end all of it goes back.
    worker.ask_to_end()
    assert worker.end() == 0
    assert isinstance(sender.last_event("knock0"), Returned)
    assert isinstance(sender.last_event("long"), Returned)
    assert sender.client.llen(queue) == 2
    assert sender.client.llen(broker.queue_of("third", FINGERPRINT)) >= 1
    assert [event.job_id for event in sender.events if isinstance(event, Begun)] == [
        "swift",
        "long",
    ]
