"""A job from its argument to its last event, with a real engine, a real Redis, a fake pipeline."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import redis

from sdq import broker, metadata
from sdq.broker import Begun, Broke, Drawn, DrawTask, Returned, Stepped, Stopped
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, held
from sdq.worker.delivery import Delivery, connect
from sdq.worker.engine import Engine
from sdq.worker.holding import Holding
from sdq.worker.identity import Identity
from sdq.worker.tasks import JobRunner

Wait = Callable[[Callable[[], object]], None]
VERSIONS = {"sdq": "1", "torch": "2", "diffusers": "3"}


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with connect(redis_url) as client:
        yield client


class Bench:
    """A runner with what it needs, and what came out of it."""

    def __init__(self, client: "redis.Redis", manifest: ModelManifest) -> None:
        self.client, self.manifest = client, manifest
        self.pipeline = FakePipeline(
            fail_on="fail", out_of_memory_on="full", nan_on="nan", black_on="black"
        )
        self.engine = Engine([held(self.pipeline, canary_spec(manifest))])
        self.engine.start()
        self.changes = 0
        identity = Identity("worker", (manifest,), "fake", VERSIONS)
        self.runner = JobRunner(
            self.engine, Delivery(client), identity, on_change=self._count_change
        )

    def _count_change(self) -> None:
        self.changes += 1

    def task(self, spec: ImageSpec, **changes: Any) -> DrawTask:
        task = DrawTask(
            job_id="job1",
            attempt=1,
            server_id="server1",
            spec=spec,
            key="a" * 64,
            fingerprint=self.manifest.fingerprint,
        )
        return msgspec.structs.replace(task, **changes)

    def run(self, task: DrawTask) -> list[broker.WorkerEvent]:
        self.runner.run(broker.to_argument(task))
        return self.events

    @property
    def events(self) -> list[broker.WorkerEvent]:
        return self._read(broker.events_stream("server1"))

    @property
    def steps(self) -> list[int]:
        found = self._read(broker.progress_stream("server1"))
        return [event.step for event in found if isinstance(event, Stepped)]

    def _read(self, stream: str) -> list[broker.WorkerEvent]:
        entries = self.client.xrange(stream)
        return [broker.read_event(fields[broker.EVENT_FIELD]) for _, fields in entries]


@pytest.fixture
def bench(client: "redis.Redis", manifest: ModelManifest) -> Iterator[Bench]:
    bench = Bench(client, manifest)
    yield bench
    assert bench.engine.close()


def test_a_picture_with_its_story(bench: Bench, spec: ImageSpec) -> None:
    begun, drawn = bench.run(bench.task(spec))
    assert begun == Begun("job1", 1, "worker")
    assert isinstance(drawn, Drawn)
    assert (drawn.job_id, drawn.attempt, drawn.worker_id) == ("job1", 1, "worker")
    provenance = metadata.read(drawn.image)
    assert provenance is not None
    assert provenance.spec == spec
    assert provenance.key == "a" * 64
    assert provenance.fingerprint == bench.manifest.fingerprint
    assert (provenance.device, provenance.versions) == ("fake", VERSIONS)
    assert bench.steps[-1] == 4
    assert bench.changes == 2
    assert bench.runner.active == ()


def test_the_same_spec_gives_the_same_bytes(bench: Bench, spec: ImageSpec) -> None:
    bench.run(bench.task(spec))
    events = bench.run(bench.task(spec, job_id="job2"))
    first, second = (event.image for event in events if isinstance(event, Drawn))
    assert first == second


def test_progress_costs_about_ten_news_a_second(bench: Bench, spec: ImageSpec) -> None:
    bench.pipeline.seconds_per_step = 0.005
    bench.run(bench.task(msgspec.structs.replace(spec, num_inference_steps=60)))
    assert bench.steps == sorted(set(bench.steps))
    assert 2 <= len(bench.steps) <= 20
    assert bench.steps[-1] == 60


@pytest.mark.parametrize(
    ("prompt", "message", "code", "retryable"),
    [
        ("fail", "RuntimeError: the fake pipeline was told", "generation_failed", True),
        ("full", "not enough memory to draw 64x48", "out_of_memory", True),
        ("full", "device with more memory", "out_of_memory", True),
        ("nan", "NaN", "generation_failed", False),
        ("black", "all black", "generation_failed", False),
    ],
)
def test_failures(
    bench: Bench, spec: ImageSpec, prompt: str, message: str, code: str, retryable: bool
) -> None:
    _, broke = bench.run(bench.task(msgspec.structs.replace(spec, prompt=prompt)))
    assert isinstance(broke, Broke)
    assert message in broke.message
    assert (broke.code, broke.retryable) == (code, retryable)


def test_no_memory_for_the_file(
    bench: Bench, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Identity, "png", full)
    _, broke = bench.run(bench.task(spec))
    assert isinstance(broke, Broke)
    assert (broke.code, broke.retryable) == ("out_of_memory", True)


def test_another_models_job_is_given_back(bench: Bench, spec: ImageSpec) -> None:
    (returned,) = bench.run(bench.task(spec, fingerprint="b" * 64))
    assert isinstance(returned, Returned)
    assert "other files" in returned.reason
    assert bench.pipeline.drawn == []


def test_a_full_inbox_gives_the_job_back(
    client: "redis.Redis", manifest: ModelManifest, spec: ImageSpec
) -> None:
    bench = Bench(client, manifest)
    assert bench.engine.close()
    bench.engine = Engine([held(bench.pipeline)], max_waiting=1)  # never started
    bench.engine.submit(spec, on_step=lambda *_: None, is_cancelled=lambda: False)
    identity = Identity("worker", (manifest,), "fake", VERSIONS)
    bench.runner = JobRunner(bench.engine, Delivery(client), identity)
    (returned,) = bench.run(bench.task(spec))
    assert isinstance(returned, Returned)
    assert "1 pictures wait" in returned.reason


def test_a_broken_worker_gives_back_and_counts_no_failure(bench: Bench, spec: ImageSpec) -> None:
    bench.pipeline.break_after = 1
    begun, returned = bench.run(bench.task(spec))
    assert isinstance(begun, Begun)
    assert isinstance(returned, Returned)
    assert "proof picture failed" in returned.reason
    *_, late = bench.run(bench.task(spec, job_id="job2"))
    assert isinstance(late, Returned)
    assert (late.job_id, len(bench.pipeline.drawn)) == ("job2", 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 2048},
        {"width": 60},
        {"height": 4096, "width": 8},
        {"scheduler": "magic"},
    ],
)
def test_what_the_model_cannot_draw_is_refused(
    bench: Bench, spec: ImageSpec, changes: dict[str, Any]
) -> None:
    (broke,) = bench.run(bench.task(msgspec.structs.replace(spec, **changes)))
    assert isinstance(broke, Broke)
    assert (broke.code, broke.retryable) == ("invalid_spec", False)
    assert bench.pipeline.drawn == []


def test_too_many_steps(bench: Bench, spec: ImageSpec) -> None:
    limits = msgspec.structs.replace(bench.manifest.limits, max_steps=3)
    bench.manifest = msgspec.structs.replace(bench.manifest, limits=limits)
    identity = Identity("worker", (bench.manifest,), "fake", VERSIONS)
    bench.runner = JobRunner(bench.engine, Delivery(bench.client), identity)
    (broke,) = bench.run(bench.task(spec))
    assert isinstance(broke, Broke)
    assert "at most 3 steps" in broke.message


@pytest.mark.parametrize("arguments", [(), ({},), (5,), ({}, {}), ({"job_id": "x"},)])
def test_arguments_that_cannot_be_read(
    bench: Bench, arguments: tuple[object, ...], caplog: pytest.LogCaptureFixture
) -> None:
    bench.runner.run(*arguments)
    assert "cannot be read" in caplog.text
    assert bench.events == []


def test_named_arguments_are_not_ours(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.runner.run({}, more=1)
    assert "cannot be read" in caplog.text


def in_a_thread(bench: Bench, task: DrawTask) -> threading.Thread:
    thread = threading.Thread(target=bench.run, args=(task,))
    thread.start()
    return thread


def test_the_cancel_flag_stops_a_job_within_a_few_steps(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    bench.pipeline.seconds_per_step = 0.02
    thread = in_a_thread(bench, bench.task(msgspec.structs.replace(spec, num_inference_steps=400)))
    wait_for(lambda: bench.steps)
    bench.client.set(broker.cancel_flag("job1"), 1)
    thread.join(5)
    assert bench.events == [Begun("job1", 1, "worker"), Stopped("job1", 1, "worker")]
    assert bench.steps[-1] < 100


def test_an_attempt_that_was_given_up_does_not_touch_the_engine(
    bench: Bench, spec: ImageSpec
) -> None:
    bench.client.set(broker.cancel_flag("job1"), 2)
    for attempt in (1, 2):
        bench.run(bench.task(spec, attempt=attempt))
    assert bench.events == [Stopped("job1", 1, "worker"), Stopped("job1", 2, "worker")]
    assert bench.pipeline.drawn == []
    assert isinstance(bench.run(bench.task(spec, attempt=3))[-1], Drawn)


def test_a_new_attempt_stops_the_one_before_it(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    """As after a worker that was stopped for a while: its job was given to it again."""
    bench.pipeline.seconds_per_step = 0.02
    long = msgspec.structs.replace(spec, num_inference_steps=400)
    first = in_a_thread(bench, bench.task(long))
    wait_for(lambda: bench.steps)
    bench.client.set(broker.cancel_flag("job1"), 1)
    bench.run(bench.task(spec, attempt=2))
    first.join(5)
    ends = [event for event in bench.events if not isinstance(event, Begun)]
    assert [(type(end), end.attempt) for end in ends] == [(Stopped, 1), (Drawn, 2)]


def test_begun_is_said_when_the_engine_comes_to_it(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    bench.pipeline.seconds_per_step = 0.05
    first = in_a_thread(bench, bench.task(msgspec.structs.replace(spec, num_inference_steps=20)))
    wait_for(lambda: bench.events)
    second = in_a_thread(bench, bench.task(spec, job_id="job2"))
    wait_for(lambda: bench.runner.active == ("job1", "job2"))
    assert [event.job_id for event in bench.events] == ["job1"]
    first.join(5)
    second.join(5)
    told = [(type(event), event.job_id) for event in bench.events]
    assert told.index((Begun, "job2")) < told.index((Drawn, "job2"))
    assert [job for kind, job in told if kind is Begun] == ["job1", "job2"]


def test_a_job_that_waits_for_the_engine_is_cancelled_at_once(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    bench.pipeline.seconds_per_step = 0.02
    long = msgspec.structs.replace(spec, num_inference_steps=400)
    first = in_a_thread(bench, bench.task(long, job_id="job1"))
    wait_for(lambda: bench.pipeline.drawn)
    second = in_a_thread(bench, bench.task(long, job_id="job2"))
    wait_for(lambda: bench.runner.active == ("job1", "job2"))
    bench.client.set(broker.cancel_flag("job2"), 1)
    second.join(5)
    assert bench.events[-1] == Stopped("job2", 1, "worker")
    assert first.is_alive()
    bench.client.set(broker.cancel_flag("job1"), 1)
    first.join(5)
    assert len(bench.pipeline.drawn) == 1


def test_the_same_attempt_twice_is_drawn_once(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    bench.pipeline.seconds_per_step = 0.05
    thread = in_a_thread(bench, bench.task(spec))
    wait_for(lambda: bench.runner.active)
    bench.runner.run(broker.to_argument(bench.task(spec)))
    thread.join(5)
    assert [type(event) for event in bench.events] == [Begun, Drawn]
    assert len(bench.pipeline.drawn) == 1


def two_long_jobs(bench: Bench, spec: ImageSpec, wait_for: Wait) -> list[threading.Thread]:
    """The first is begun, the second waits for the engine."""
    long = msgspec.structs.replace(spec, num_inference_steps=60)
    bench.pipeline.seconds_per_step = 0.02
    first = in_a_thread(bench, bench.task(long))
    wait_for(lambda: bench.events)
    second = in_a_thread(bench, bench.task(long, job_id="job2"))
    wait_for(lambda: bench.runner.active == ("job1", "job2"))
    return [first, second]


def test_draining_finishes_what_is_begun_and_gives_the_rest_back(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    first, second = two_long_jobs(bench, spec, wait_for)
    bench.runner.drain("the worker is draining")
    second.join(5)
    assert first.is_alive()
    assert bench.events[-1] == Returned("job2", 1, "worker", "the worker is draining")
    bench.run(bench.task(spec, job_id="job3"))  # it was on its way
    assert bench.events[-1] == Returned("job3", 1, "worker", "the worker is draining")
    first.join(5)
    assert isinstance(bench.events[-1], Drawn)
    assert bench.runner.untold == 0


def test_of_a_model_that_is_not_served_one_job_stays(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    first, second = two_long_jobs(bench, spec, wait_for)
    wait_for(lambda: bench.pipeline.drawn)
    third = in_a_thread(bench, bench.task(spec, job_id="job3"))
    wait_for(lambda: bench.runner.active_by_model == {"shapes": 3})
    bench.runner.make_way(["shapes"], [])
    bench.runner.make_way(["other"], ["shapes"])  # nothing else is in hand: one may stay
    third.join(5)
    assert bench.events[-1] == Returned("job3", 1, "worker", "another model has its turn there")
    assert bench.runner.active == ("job1", "job2")
    bench.runner.drop_all()
    first.join(5)
    second.join(5)


def test_of_a_model_that_another_worker_has_in_memory_no_job_stays(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    other = msgspec.structs.replace(bench.manifest, model_id="other")
    pipeline = FakePipeline(0.02)
    holdings = [Holding(name, lambda: pipeline, needs_bytes=1) for name in ("shapes", "other")]
    bench.engine.close()
    bench.engine = Engine(holdings, budget_bytes=1)  # there is room for one
    bench.engine.start()
    identity = Identity("worker", (bench.manifest, other), "fake", VERSIONS)
    bench.runner = JobRunner(bench.engine, Delivery(bench.client), identity)
    long = msgspec.structs.replace(spec, num_inference_steps=400)
    first = in_a_thread(bench, bench.task(long))
    wait_for(lambda: pipeline.drawn)
    knocks = in_a_thread(
        bench, bench.task(msgspec.structs.replace(spec, model="other"), job_id="job2")
    )
    wait_for(lambda: bench.runner.active_by_model == {"shapes": 1, "other": 1})
    bench.runner.make_way(bench.engine.serving, [])
    assert not bench.events[1:]
    bench.runner.make_way(bench.engine.serving, ["other"])
    knocks.join(5)
    assert bench.events[1:] == [Returned("job2", 1, "worker", "another model has its turn there")]
    bench.runner.drop_all()
    first.join(5)


def test_dropping_all_gives_the_jobs_back_at_once(
    bench: Bench, spec: ImageSpec, wait_for: Wait
) -> None:
    threads = two_long_jobs(bench, spec, wait_for)
    bench.runner.drop_all()
    for thread in threads:
        thread.join(5)
    ends = [event for event in bench.events if isinstance(event, Returned)]
    assert sorted(event.job_id for event in ends) == ["job1", "job2"]
    assert not [event for event in bench.events if isinstance(event, Drawn | Broke)]
    assert len(bench.pipeline.drawn) == 1


def test_what_could_not_be_told_while_leaving_is_counted(
    bench: Bench, spec: ImageSpec, wait_for: Wait, free_port: int
) -> None:
    with connect(f"redis://127.0.0.1:{free_port}/0") as nobody:
        identity = Identity("worker", (bench.manifest,), "fake", VERSIONS)
        delivery = Delivery(nobody, away_patience_seconds=0.0)
        bench.runner = JobRunner(bench.engine, delivery, identity)
        bench.run(bench.task(spec))
        assert bench.runner.untold == 0  # the server finds out by itself
        bench.runner.drain("the worker is draining")
        bench.run(bench.task(spec))
        assert bench.runner.untold == 1
