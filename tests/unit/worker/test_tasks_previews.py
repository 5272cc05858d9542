"""A job that somebody wants to watch: real engine, real Redis, a pipeline that takes turns."""

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import redis
from PIL import Image

from sdq import broker
from sdq.broker import Drawn, DrawTask, Stepped, WorkerEvent
from sdq.protocol.model import ModelManifest
from sdq.spec import ImageSpec
from sdq.testing.pipeline import held, picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker.delivery import Delivery, connect
from sdq.worker.engine import Engine
from sdq.worker.identity import Identity
from sdq.worker.tasks import JobRunner

VERSIONS = {"sdq": "1", "torch": "2", "diffusers": "3"}


class Bench:
    def __init__(self, client: "redis.Redis", manifest: ModelManifest) -> None:
        self.client, self.manifest = client, manifest
        self.pipeline = SteppingFake()
        self.engine = Engine([held(self.pipeline)])
        self.engine.start()
        identity = Identity("worker", (manifest,), "fake", VERSIONS)
        self.runner = JobRunner(self.engine, Delivery(client), identity)

    def run(self, spec: ImageSpec, job_id: str = "job1") -> None:
        task = DrawTask(job_id, 1, "server1", spec, "a" * 64, self.manifest.fingerprint)
        self.runner.run(broker.to_argument(task))

    def ask(self, job_id: str = "job1") -> None:
        self.client.set(broker.preview_flag(job_id), 1)

    @property
    def steps(self) -> list[Stepped]:
        found = self._read(broker.progress_stream("server1"))
        return [event for event in found if isinstance(event, Stepped)]

    @property
    def previews(self) -> list[Stepped]:
        return [event for event in self.steps if event.preview]

    def is_drawn(self) -> bool:
        found = self._read(broker.events_stream("server1"))
        return any(isinstance(event, Drawn) for event in found)

    def _read(self, stream: str) -> list[WorkerEvent]:
        entries: Any = self.client.xrange(stream)
        return [broker.read_event(fields[broker.EVENT_FIELD]) for _, fields in entries]


@pytest.fixture
def bench(redis_url: str, manifest: ModelManifest) -> Iterator[Bench]:
    with connect(redis_url) as client:
        bench = Bench(client, manifest)
        yield bench
        assert bench.engine.close()


def test_whoever_asks_sees_small_jpegs_of_the_picture(bench: Bench, spec: ImageSpec) -> None:
    bench.ask()
    bench.pipeline.seconds_per_turn = 0.01
    long = msgspec.structs.replace(spec, num_inference_steps=60)
    bench.run(long)
    assert len(bench.previews) >= 2
    for event in bench.previews:
        assert len(event.preview) <= broker.MAX_PREVIEW_BYTES
        with Image.open(io.BytesIO(event.preview)) as image:
            assert (image.format, image.size) == ("JPEG", (32, 24))
            corner, wanted = image.getpixel((0, 0)), picture_of(long).getpixel((0, 0))
        assert isinstance(corner, tuple)
        assert isinstance(wanted, tuple)
        assert max(abs(a - b) for a, b in zip(corner, wanted, strict=True)) <= 40
    told = [event.step for event in bench.steps]
    assert told == sorted(told)
    assert told[-1] == 60
    assert bench.steps[-1].preview == b""  # the picture itself is there
    assert len(bench.pipeline.shown) <= len(bench.previews) + 1
    assert bench.is_drawn()


def test_nothing_is_made_for_those_who_did_not_ask(bench: Bench, spec: ImageSpec) -> None:
    bench.ask("another")
    bench.run(msgspec.structs.replace(spec, num_inference_steps=20))
    assert bench.steps
    assert bench.previews == []
    assert bench.pipeline.shown == []


def test_who_asks_in_the_middle_is_heard_and_who_leaves_too(
    bench: Bench, spec: ImageSpec, wait_for: Callable[[Callable[[], object]], None]
) -> None:
    bench.pipeline.seconds_per_turn = 0.005
    long = msgspec.structs.replace(spec, num_inference_steps=500)
    thread = threading.Thread(target=bench.run, args=(long,))
    thread.start()
    wait_for(lambda: bench.steps)
    assert bench.pipeline.shown == []
    bench.ask()
    wait_for(lambda: len(bench.previews) > 1)
    bench.client.delete(broker.preview_flag("job1"))
    wait_for(lambda: len(bench.steps) - bench.steps.index(bench.previews[-1]) > 3)
    bench.client.set(broker.cancel_flag("job1"), 1)
    thread.join(5)
    assert not thread.is_alive()


def test_a_pipeline_that_stumbles_over_a_preview_draws_all_the_same(
    bench: Bench, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(flight: object) -> None:
        raise RuntimeError("no colours")

    monkeypatch.setattr(bench.pipeline, "preview", stumble)
    bench.ask()
    bench.run(spec)
    assert bench.previews == []
    assert bench.is_drawn()
