"""A job that asks for LoRAs: they are fetched before the engine hears of it."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from sdq import broker
from sdq.broker import Begun, Broke, Drawn, DrawTask, Returned, Stepped, Stopped, WorkerEvent
from sdq.protocol.model import ModelFile, ModelManifest
from sdq.spec import ImageSpec, Lora
from sdq.testing.file_server import Fault, FileServer
from sdq.testing.pipeline import FakePipeline, held
from sdq.worker import tasks
from sdq.worker.delivery import Delivery, connect
from sdq.worker.engine import Engine
from sdq.worker.identity import Identity
from sdq.worker.lora_store import LoraStore, lora_path
from sdq.worker.tasks import JobRunner

Wait = Callable[[Callable[[], object]], None]
DATA = b"a LoRA"
LORA = Lora("sketch", hashlib.sha256(DATA).hexdigest(), 1.0)
QUICK_SECONDS = 3.0


class Bench:
    """A runner with a store of LoRAs, and what came out of it."""

    def __init__(
        self, client: "redis.Redis", manifest: ModelManifest, folder: Path, url: str
    ) -> None:
        self.client = client
        self.folder = folder
        self.pipeline = FakePipeline()
        self.engine = Engine([held(self.pipeline)])
        self.engine.start()
        self.loras = LoraStore(folder)
        identity = Identity("worker", (manifest,), "fake", {})
        self.runner = JobRunner(self.engine, Delivery(client), identity, loras=self.loras)
        self.file = ModelFile("x.safetensors", len(DATA), LORA.sha256, (f"{url}/x.safetensors",))
        self.fingerprint = manifest.fingerprint

    def task(self, spec: ImageSpec, job_id: str = "job1") -> DrawTask:
        spec = msgspec.structs.replace(spec, loras=(LORA,))
        return DrawTask(job_id, 1, "server1", spec, "a" * 64, self.fingerprint, (self.file,))

    def run(self, task: DrawTask) -> list[WorkerEvent]:
        self.runner.run(broker.to_argument(task))
        return self.told(broker.events_stream("server1"))

    def begin(self, *all_tasks: DrawTask) -> list[threading.Thread]:
        threads = [threading.Thread(target=self.run, args=(task,)) for task in all_tasks]
        for thread in threads:
            thread.start()
        return threads

    def told(self, stream: str) -> list[WorkerEvent]:
        entries: Any = self.client.xrange(stream)
        return [broker.read_event(fields[broker.EVENT_FIELD]) for _, fields in entries]


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer(files={"/x.safetensors": DATA}) as server:
        yield server


@pytest.fixture
def bench(
    redis_url: str, manifest: ModelManifest, tmp_path: Path, web: FileServer
) -> Iterator[Bench]:
    with connect(redis_url) as client:
        bench = Bench(client, manifest, tmp_path / "loras", web.url)
        yield bench
        bench.loras.close()
        assert bench.engine.close()


def test_it_is_fetched_once_for_all_jobs(bench: Bench, web: FileServer, spec: ImageSpec) -> None:
    for thread in bench.begin(bench.task(spec), bench.task(spec, "job2")):
        thread.join(10)
    events = bench.run(bench.task(spec, "job3"))
    assert sum(isinstance(event, Drawn) for event in events) == 3
    assert len(web.requests) == 1
    assert lora_path(bench.folder, LORA).read_bytes() == DATA


def test_wrong_bytes_may_be_right_elsewhere(bench: Bench, web: FileServer, spec: ImageSpec) -> None:
    web.files["/x.safetensors"] = b"others"
    (broke,) = bench.run(bench.task(spec))
    assert isinstance(broke, Broke)
    assert "the LoRA sketch cannot be fetched" in broke.message
    assert "wrong hash" in broke.message
    assert broke.retryable
    assert bench.pipeline.drawn == []


def test_no_other_worker_would_take_it_either(bench: Bench, spec: ImageSpec) -> None:
    bench.file = msgspec.structs.replace(bench.file, path="x.ckpt")
    (broke,) = bench.run(bench.task(spec))
    assert isinstance(broke, Broke)
    assert not broke.retryable


@pytest.fixture
def fetching(bench: Bench, web: FileServer, spec: ImageSpec, wait_for: Wait) -> threading.Thread:
    """A job whose download is silent for a long time."""
    web.always["/x.safetensors"] = Fault(status=503, retry_after="60")
    (thread,) = bench.begin(bench.task(spec))
    wait_for(lambda: web.requests)
    return thread


def end_of(bench: Bench, thread: threading.Thread, began: float) -> WorkerEvent:
    thread.join(10)
    assert time.monotonic() - began < QUICK_SECONDS
    (event,) = bench.told(broker.events_stream("server1"))
    assert bench.pipeline.drawn == []
    return event


def test_cancelled_while_it_is_fetched(bench: Bench, fetching: threading.Thread) -> None:
    began = time.monotonic()
    bench.client.set(broker.cancel_flag("job1"), 1)
    assert isinstance(end_of(bench, fetching, began), Stopped)


@pytest.mark.parametrize("way", ["drain", "drop_all"])
def test_a_worker_that_leaves_gives_it_back(
    bench: Bench, fetching: threading.Thread, way: str
) -> None:
    began = time.monotonic()
    getattr(bench.runner, way)("the worker is draining")
    event = end_of(bench, fetching, began)
    assert isinstance(event, Returned)
    assert event.reason == "the worker is draining"


def test_the_server_hears_that_the_worker_is_busy_with_it(
    bench: Bench,
    web: FileServer,
    spec: ImageSpec,
    wait_for: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or it would take the job away from a worker that it knows to be quick."""
    monkeypatch.setattr(tasks, "BUSY_INTERVAL_SECONDS", 0.1)
    web.always["/x.safetensors"] = Fault(status=503, retry_after="60")
    (thread,) = bench.begin(bench.task(spec))
    stream = broker.progress_stream("server1")
    word = Stepped("job1", 1, "worker", 0, spec.num_inference_steps)
    wait_for(lambda: bench.told(stream)[:3] == [word] * 3)
    assert not [event for event in bench.told("sdq.events.server1") if isinstance(event, Begun)]
    bench.runner.drop_all()
    thread.join(10)
