"""The heartbeat: there while the worker lives, gone when it ended well."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from sdq import broker
from sdq.broker import HEARTBEAT_TIMEOUT_SECONDS, Heartbeat
from sdq.stack.redis import RedisServer
from sdq.testing.worker import fake_config
from sdq.worker.delivery import connect
from sdq.worker.heartbeat import HeartbeatThread

Wait = Callable[[Callable[[], object]], None]
KEY = broker.heartbeat_key("worker")


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with connect(redis_url) as client:
        yield client


class Describer:
    def __init__(self) -> None:
        self.state = "loading"

    def __call__(self) -> Heartbeat:
        return Heartbeat(
            worker_id="worker",
            host="host",
            models=fake_config("redis://").held(),
            device="cpu",
            state=self.state,
            active=("job1",),
            concurrency=2,
            seconds_per_step=None,
            versions={"sdq": "1"},
            sent_at=time.time(),
        )


def read(client: "redis.Redis") -> Heartbeat | None:
    data = client.get(KEY)
    return broker.read_heartbeat(data) if isinstance(data, bytes) else None


def test_a_life(client: "redis.Redis", wait_for: Wait) -> None:
    describe = Describer()
    thread = HeartbeatThread(client, "worker", describe)
    thread.start()
    wait_for(lambda: read(client))
    beat = read(client)
    assert beat is not None
    assert msgspec.structs.replace(beat, sent_at=0) == msgspec.structs.replace(
        describe(), sent_at=0
    )
    assert 0 < client.ttl(KEY) <= HEARTBEAT_TIMEOUT_SECONDS
    score = client.zscore(broker.WORKERS_SET, "worker")
    assert score == pytest.approx(time.time(), abs=5)  # the same clock, in this test
    thread.stop()
    assert not client.exists(KEY)
    assert client.zcard(broker.WORKERS_SET) == 0


def test_news_are_told_at_once(client: "redis.Redis", wait_for: Wait) -> None:
    describe = Describer()
    thread = HeartbeatThread(client, "worker", describe, interval_seconds=600)
    thread.start()
    wait_for(lambda: read(client))
    describe.state = "ready"
    thread.beat_soon()
    wait_for(lambda: (beat := read(client)) and beat.state == "ready")
    thread.stop()


def test_a_defect_of_our_own_does_not_end_it(
    client: "redis.Redis", wait_for: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    describe = Describer()
    failing = [ZeroDivisionError("a defect")]

    def describe_badly() -> Heartbeat:
        if failing:
            raise failing.pop()
        return describe()

    thread = HeartbeatThread(client, "worker", describe_badly, interval_seconds=0.01)
    thread.start()
    wait_for(lambda: read(client))
    thread.stop()
    assert "a defect" in caplog.text


def test_a_redis_that_goes_and_comes_back_is_told_once_each(
    tmp_path: Path, wait_for: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with RedisServer(tmp_path) as server, connect(server.url) as client:
        thread = HeartbeatThread(client, "worker", Describer(), interval_seconds=600)
        thread.start()
        wait_for(lambda: read(client))
        server.stop()
        thread.beat_soon()
        wait_for(lambda: "does not answer" in caplog.text)
        time.sleep(1.2)  # several more tries: while it is away they come quickly
        server.start()
        wait_for(lambda: "answers again" in caplog.text)
        wait_for(lambda: read(client))
        thread.stop()
    assert caplog.text.count("does not answer") == 1
    assert caplog.text.count("answers again") == 1


def test_a_wrong_password_says_what_to_do(
    redis_url: str, wait_for: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = "redis://:wrong@" + redis_url.split("@")[1]
    with connect(wrong) as client:
        thread = HeartbeatThread(client, "worker", Describer())
        thread.start()
        wait_for(lambda: "sdq worker install" in caplog.text)
        thread.stop()
    assert "wrong" not in caplog.text


def test_the_drain_flag_is_heard_once_and_removed_at_the_end(
    client: "redis.Redis", wait_for: Wait
) -> None:
    heard: list[str] = []
    thread = HeartbeatThread(
        client,
        "worker",
        Describer(),
        on_drain=lambda: heard.append(threading.current_thread().name),
        interval_seconds=0.01,
    )
    thread.start()
    wait_for(lambda: read(client))
    assert heard == []
    client.set(broker.drain_flag("worker"), 1)
    wait_for(lambda: heard)
    sent_at = (beat := read(client)) and beat.sent_at
    wait_for(lambda: (beat := read(client)) and sent_at and beat.sent_at > sent_at + 0.05)
    thread.stop()
    assert heard == ["sdq-heartbeat"]
    assert not client.exists(broker.drain_flag("worker"))


def test_what_else_there_is_to_be_read_in_redis_is_read_after_each_heartbeat(
    client: "redis.Redis", wait_for: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Heartbeat | None] = []

    def look() -> None:
        seen.append(read(client))
        if len(seen) == 2:
            raise redis.ConnectionError("cut")

    thread = HeartbeatThread(client, "worker", Describer(), look=look, interval_seconds=0.01)
    thread.start()
    wait_for(lambda: len(seen) >= 4)
    thread.stop()
    assert all(seen)
    assert caplog.text.count("does not answer") == 1


def test_a_drain_flag_of_an_earlier_process_is_not_for_us(
    client: "redis.Redis", wait_for: Wait
) -> None:
    heard: list[int] = []
    client.set(broker.drain_flag("worker"), 1)
    thread = HeartbeatThread(
        client, "worker", Describer(), on_drain=lambda: heard.append(1), interval_seconds=0.01
    )
    thread.start()
    wait_for(lambda: not client.exists(broker.drain_flag("worker")))
    thread.stop()
    assert heard == []


def test_the_last_word_of_a_broken_worker_stays_for_a_while(
    client: "redis.Redis", wait_for: Wait
) -> None:
    describe = Describer()
    thread = HeartbeatThread(client, "worker", describe, interval_seconds=600)
    thread.start()
    wait_for(lambda: read(client))
    describe.state = "broken"
    thread.stop(keep_last=True)
    beat = read(client)
    assert beat is not None
    assert beat.state == "broken"
    assert 0 < client.ttl(KEY) <= HEARTBEAT_TIMEOUT_SECONDS
