"""Real workers: a process each, a real Redis; the model is the real one or a fake."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import sdq_shapes

import sdq
from sdq import broker
from sdq.broker import DrawTask, Heartbeat, Stepped, WorkerEvent
from sdq.config import Home
from sdq.protocol.messages import WorkerSettings
from sdq.protocol.model import (
    ModelDefaults,
    ModelFile,
    ModelLimits,
    ModelManifest,
    fingerprint_of,
)
from sdq.server.catalog import Catalog
from sdq.spec import ImageSpec
from sdq.testing.worker import fake_manifest
from sdq.worker.install import Installed, install
from sdq.worker.models import sha256_of
from sdq.worker.pipelines import SCHEDULERS
from sdq.worker.profile import DrawOptions

CHECKOUT = Path(sdq.__file__).parents[1]
PATIENCE_SECONDS = 60.0
OPTIONS = DrawOptions(device="cpu")
SERVER = "server1"

# Installing draws the canary in this process; diffusers has its own quarrels with numpy.
LIBRARY_WARNINGS = ("ignore:__array__ implementation:DeprecationWarning",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for text in LIBRARY_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))


def wait_until(condition: Callable[[], Any], what: str = "it") -> Any:
    """Polls until the condition holds; fails with ``what``. Gives what the condition gave."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)
    return found


class WorkerProcess:
    """A worker as a process; its stderr line by line. Killed at the end of the test."""

    def __init__(self, arguments: list[str], worker_id: str, client: "redis.Redis") -> None:
        self.worker_id = worker_id
        self.client = client
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=CHECKOUT,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def beat(self) -> Heartbeat | None:
        data = self.client.get(broker.heartbeat_key(self.worker_id))
        return broker.read_heartbeat(data) if isinstance(data, bytes) else None

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.lines
        beat = self.beat
        return beat is not None and beat.state in ("ready", "drawing")

    def ask_to_end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        self._reader.join(PATIENCE_SECONDS)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Sender:
    """The server's side, without a server: sends tasks, reads the streams."""

    def __init__(self, redis_url: str, manifest: ModelManifest) -> None:
        self.manifest = manifest
        self.client = redis.Redis.from_url(redis_url)
        self._app = broker.make_app(redis_url)

    def spec(self, **changes: Any) -> ImageSpec:
        defaults = self.manifest.defaults
        spec = ImageSpec(
            prompt="a red circle on a blue background",
            negative_prompt="",
            model=self.manifest.model_id,
            width=defaults.width,
            height=defaults.height,
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
            scheduler=defaults.scheduler,
            seed=7,
        )
        return msgspec.structs.replace(spec, **changes)

    def send(self, job_id: str, spec: ImageSpec | None = None, *, attempt: int = 1) -> None:
        task = DrawTask(
            job_id=job_id,
            attempt=attempt,
            server_id=SERVER,
            spec=spec or self.spec(),
            key="a" * 64,
            fingerprint=self.manifest.fingerprint,
        )
        self.send_raw([broker.to_argument(task)])

    def send_raw(self, arguments: list[Any]) -> None:
        queue = broker.queue_of(self.manifest.model_id, self.manifest.fingerprint)
        self._app.send_task(broker.DRAW_TASK, args=arguments, queue=queue)

    def cancel(self, job_id: str, *, up_to: int = 1) -> None:
        self.client.set(broker.cancel_flag(job_id), up_to)

    @property
    def events(self) -> list[WorkerEvent]:
        return self._read(broker.events_stream(SERVER))

    def steps(self, job_id: str) -> list[int]:
        found = self._read(broker.progress_stream(SERVER))
        return [
            event.step for event in found if isinstance(event, Stepped) and event.job_id == job_id
        ]

    def last_event(self, job_id: str) -> WorkerEvent:
        """The event that ends the job."""

        def ended() -> WorkerEvent | None:
            found = [event for event in self.events if event.job_id == job_id]
            return found[-1] if found and not isinstance(found[-1], broker.Begun) else None

        event: WorkerEvent = wait_until(ended, f"the end of {job_id}")
        return event

    def _read(self, stream: str) -> list[WorkerEvent]:
        entries = self.client.xrange(stream)
        return [broker.read_event(fields[broker.EVENT_FIELD]) for _, fields in entries]

    def close(self) -> None:
        self._app.close()
        self.client.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def shapes() -> ModelManifest:
    """The real built-in model, hashed as it lies here."""
    folder, shipped = sdq_shapes.folder(), Catalog.load().manifest("shapes")
    files = tuple(
        ModelFile(
            path=str(path.relative_to(folder)),
            size_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            links=(f"builtin:shapes/{path.relative_to(folder)}",),
        )
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".json", ".safetensors")
    )
    return ModelManifest(
        model_id="shapes",
        title="Shapes",
        kind="folder",
        license="MIT",
        files=files,
        defaults=ModelDefaults(128, 128, 20, 4.0, "ddim"),
        limits=ModelLimits(64, 256, 256 * 256, 100, tuple(SCHEDULERS)),
        canary_prompt=shipped.canary_prompt,
        fingerprint=fingerprint_of(files),
        golden=shipped.golden,
    )


@pytest.fixture
def home(sdq_home: Path) -> Home:
    return Home(sdq_home)


@pytest.fixture
def install_shapes(home: Home, shapes: ModelManifest, redis_url: str) -> Callable[..., Installed]:
    """Installs the real model into this test's home; measured only when a test asks for that."""

    def begin(measure_seconds: float = 0.0) -> Installed:
        settings = WorkerSettings(1, redis_url, shapes)
        return install(settings, home, options=OPTIONS, measure_seconds=measure_seconds)

    return begin


@pytest.fixture
def send_shapes(redis_url: str, shapes: ModelManifest) -> Iterator[Sender]:
    sender = Sender(redis_url, shapes)
    yield sender
    sender.close()


@pytest.fixture
def sender(redis_url: str) -> Iterator[Sender]:
    """For the fake model."""
    sender = Sender(redis_url, fake_manifest())
    yield sender
    sender.close()


@pytest.fixture
def open_sender() -> Iterator[Callable[[str], Sender]]:
    """For the fake model, through any Redis."""
    opened: list[Sender] = []

    def begin(url: str) -> Sender:
        opened.append(Sender(url, fake_manifest()))
        return opened[-1]

    yield begin
    for sender in opened:
        sender.close()


@pytest.fixture
def start(redis_url: str) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts a worker: ``start("sdq", "worker", "run", worker_id=…)``; ready when it returns."""
    started: list[WorkerProcess] = []
    with redis.Redis.from_url(redis_url) as client:

        def begin(*arguments: str, worker_id: str, ready: bool = True) -> WorkerProcess:
            process = WorkerProcess(list(arguments), worker_id, client)
            started.append(process)
            if ready:
                wait_until(process.is_ready, "a ready worker")
            return process

        yield begin
        for process in started:
            process.kill()


@pytest.fixture
def start_fake(
    start: Callable[..., WorkerProcess], home: Home, redis_url: str
) -> Callable[..., WorkerProcess]:
    """A worker with a fake pipeline; more options as of ``sdq.testing.worker``."""

    def begin(*options: str, url: str = redis_url, ready: bool = True) -> WorkerProcess:
        arguments = ("sdq.testing.worker", str(home.root), "--redis", url, *options)
        return start(*arguments, worker_id="fake-worker", ready=ready)

    return begin
