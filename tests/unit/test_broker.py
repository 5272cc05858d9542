"""What server and worker share: payloads there and back, hostile ones refused, no pickle."""

import pickle
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import serialization
from kombu.exceptions import ContentDisallowed
from kombu.simple import SimpleQueue

from sdq import broker
from sdq.broker import (
    DRAW_TASK,
    MAX_IMAGE_BYTES,
    Begun,
    Broke,
    Drawn,
    DrawTask,
    Heartbeat,
    HeldModel,
    Stepped,
    Stopped,
    from_argument,
    make_app,
    pack,
    queue_of,
    read_event,
    read_heartbeat,
    to_argument,
)
from sdq.errors import InvalidMessage
from sdq.protocol.constants import MAX_REPLY_BYTES
from sdq.spec import ImageSpec

SPEC = ImageSpec("Käse 日本", "", "shapes", 64, 64, 20, 5.0, "ddim", 2**32 - 1)
TASK = DrawTask("job1", 1, "server1", SPEC, "a" * 64, "b" * 64)
EVENTS = [
    Begun("job1", 1, "box-1.gpu_0"),
    Stepped("job1", 1, "w", 3, 20),
    Drawn("job1", 2, "w", b"\x89PNG\x00\xff", 1.5),
    Broke("job1", 3, "w", "model", "weights are missing", False),
    Stopped("job1", 1, "w"),
]
BEAT = Heartbeat(
    "w", "box", (HeldModel("shapes", "b" * 64),), "cuda:0", "ready", ("job1",), 2, None,
    {"sdq": "0.1"}, 1.5e9,
)  # fmt: skip


def test_the_argument_survives_the_serialiser_of_celery() -> None:
    content_type, encoding, data = serialization.dumps(to_argument(TASK), serializer="msgpack")
    plain = serialization.loads(data, content_type, encoding, accept=["application/x-msgpack"])
    assert from_argument(plain) == TASK


def test_a_task_travels_through_a_real_queue() -> None:
    app = make_app("memory://")
    app.send_task(DRAW_TASK, args=[to_argument(TASK)], queue=queue_of("shapes", "f" * 64))
    with (
        app.connection_for_read() as connection,
        SimpleQueue(
            connection, queue_of("shapes", "f" * 64), accept=app.conf.accept_content
        ) as queue,
    ):
        message = queue.get(timeout=5)
        message.ack()
        assert message.content_type == "application/x-msgpack"
        assert message.headers["task"] == DRAW_TASK
        args, _, _ = message.payload
    assert from_argument(args[0]) == TASK
    app.close()


def test_pickled_content_is_refused() -> None:
    accept = serialization.prepare_accept_content(make_app("memory://").conf.accept_content)
    assert accept == {"application/x-msgpack"}
    for serializer in ("pickle", "yaml"):
        with pytest.raises(ContentDisallowed):
            serialization.loads(
                pickle.dumps({}), f"application/x-{serializer}", "binary", accept=accept
            )
    with pytest.raises(ContentDisallowed):
        serialization.loads(
            pickle.dumps({}), "application/x-python-serialize", "binary", accept=accept
        )


def test_the_app_keeps_no_results_and_fetches_nothing_ahead() -> None:
    app = make_app("redis://127.0.0.1:1/0")
    assert type(app.backend).__name__ == "DisabledBackend"
    conf = app.conf
    assert conf.accept_content == ["msgpack"]
    assert conf.task_serializer == conf.result_serializer == "msgpack"
    assert conf.task_ignore_result is True
    assert conf.task_acks_late is False
    assert conf.worker_disable_prefetch is True


def test_variables_of_another_program_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere:6379/0")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://elsewhere:6379/1")
    app = make_app("redis://127.0.0.1:1/0")
    assert type(app.backend).__name__ == "DisabledBackend"
    assert app.connection_for_write().hostname == "127.0.0.1"
    assert app.connection_for_read().hostname == "127.0.0.1"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_there_and_back(event: broker.WorkerEvent) -> None:
    assert read_event(pack(event)) == event


def test_a_heartbeat_there_and_back() -> None:
    assert read_heartbeat(pack(BEAT)) == BEAT
    newer = msgspec.to_builtins(BEAT) | {"temperature": 71}
    assert read_heartbeat(msgpack.packb(newer)) == BEAT


@pytest.mark.parametrize(
    "change",
    [{"concurrency": 0}, {"concurrency": -3}, {"concurrency": 2**62}, {"seconds_per_step": -1.0},
     {"seconds_per_step": float("inf")}, {"seconds_per_step": float("nan")},
     {"worker_id": "a b"}],
)  # fmt: skip
def test_hostile_heartbeats(change: dict[str, Any]) -> None:
    good = msgspec.to_builtins(BEAT)
    with pytest.raises(InvalidMessage):
        read_heartbeat(msgpack.packb(good | change))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_kind_of_error(data: bytes) -> None:
    for read in (read_event, read_heartbeat):
        with pytest.raises(InvalidMessage):
            read(data)


@pytest.mark.parametrize(
    "change",
    [{"type": "drew"}, {"job_id": "../x"}, {"job_id": "A"}, {"job_id": "x\n"}, {"job_id": ""},
     {"attempt": 0}, {"attempt": True}, {"worker_id": "a b"}, {"worker_id": "w\n"},
     {"image": "text"}, {"image": None}, {"draw_seconds": -1.0}, {"draw_seconds": float("nan")},
     {"draw_seconds": float("inf")}, {"draw_seconds": 1e300}, {"draw_seconds": "1"}],
)  # fmt: skip
def test_hostile_events(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "type": "drawn", "job_id": "job1", "attempt": 1, "worker_id": "w", "image": b"x",
        "draw_seconds": 1.0,
    }  # fmt: skip
    read_event(msgpack.packb(good))
    with pytest.raises(InvalidMessage):
        read_event(msgpack.packb(good | change))


@pytest.mark.parametrize(
    "argument",
    [None, [], "x", {}, to_argument(TASK) | {"attempt": 0}, to_argument(TASK) | {"key": "short"},
     to_argument(TASK) | {"fingerprint": "A" * 64}, to_argument(TASK) | {"spec": {}},
     to_argument(TASK) | {"spec": to_argument(TASK)["spec"] | {"width": 10**9}},
     to_argument(TASK) | {"spec": to_argument(TASK)["spec"] | {"strength": 1.0}}],
)  # fmt: skip
def test_hostile_arguments(argument: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        from_argument(argument)


def test_a_picture_in_an_event_fits_into_a_reply() -> None:
    assert MAX_IMAGE_BYTES + 1024 * 1024 < MAX_REPLY_BYTES
    event = Drawn("job1", 1, "w", bytes(MAX_IMAGE_BYTES + 1), 1.0)
    with pytest.raises(InvalidMessage, match=r"\$\.image"):
        read_event(pack(event))


def test_names_in_redis_do_not_collide() -> None:
    names = [
        queue_of("x", "f" * 64),
        broker.events_stream("x"),
        broker.progress_stream("x"),
        broker.cancel_flag("x"),
        broker.heartbeat_key("x"),
        broker.epoch_key("x"),
        broker.WORKERS_SET,
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("sdq.") for name in names)
