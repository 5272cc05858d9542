"""Events reach Redis, also one that was away for a while."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from sdq import broker
from sdq.broker import Begun, Drawn, Stepped
from sdq.errors import UsageError
from sdq.stack.redis import RedisServer
from sdq.worker import delivery
from sdq.worker.delivery import Delivery, connect

EVENT = Begun("job1", 1, "worker")


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def nobody(free_port: int) -> Iterator["redis.Redis"]:
    """A client of a Redis that is not there."""
    with connect(f"redis://127.0.0.1:{free_port}/0") as client:
        yield client


def events_in(client: "redis.Redis", stream: str) -> list[broker.WorkerEvent]:
    entries = client.xrange(stream)
    return [broker.read_event(fields[broker.EVENT_FIELD]) for _, fields in entries]


def test_events_and_progress_have_streams_of_their_own(client: "redis.Redis") -> None:
    speaker = Delivery(client)
    speaker.announce("server1", EVENT)
    assert speaker.deliver("server1", EVENT)
    step = Stepped("job1", 1, "worker", 3, 4)
    speaker.report("server1", step)
    assert events_in(client, broker.events_stream("server1")) == [EVENT, EVENT]
    assert events_in(client, broker.progress_stream("server1")) == [step]


def test_progress_is_trimmed(client: "redis.Redis") -> None:
    speaker = Delivery(client)
    for number in range(broker.PROGRESS_STREAM_ENTRIES + 300):
        speaker.report("server1", Stepped("job1", 1, "worker", number, 5_000))
    assert client.xlen(broker.progress_stream("server1")) < broker.PROGRESS_STREAM_ENTRIES + 200


@pytest.mark.parametrize(
    ("flag", "stopped"),
    [
        (b"1", [True, False, False]),
        (b"2", [True, True, False]),
        (b"0", [False, False, False]),
        (b"rubbish", [True, True, True]),
        (b"", [True, True, True]),
        (b"9" * 5_000, [True, True, True]),
    ],
)
def test_the_cancel_flag_speaks_of_attempts_up_to_its_number(
    client: "redis.Redis", flag: bytes, stopped: list[bool]
) -> None:
    speaker = Delivery(client)
    assert not speaker.flags("job1", 1).is_cancelled
    client.set(broker.cancel_flag("job1"), flag)
    assert [speaker.flags("job1", attempt).is_cancelled for attempt in (1, 2, 3)] == stopped
    assert not speaker.flags("job2", 1).is_cancelled


def test_both_flags_are_read_at_once(client: "redis.Redis") -> None:
    speaker = Delivery(client)
    assert speaker.flags("job1", 1) == (False, False)
    client.set(broker.preview_flag("job1"), 1)
    assert speaker.flags("job1", 1) == (False, True)
    client.set(broker.cancel_flag("job1"), 1)
    before = client.info("stats")["total_commands_processed"]
    assert speaker.flags("job1", 1) == (True, True)
    assert client.info("stats")["total_commands_processed"] == before + 2  # and this question
    assert speaker.flags("job2", 1) == (False, False)


def test_an_event_waits_for_a_redis_that_comes_back(
    tmp_path: Path, wait_for: Callable[[Callable[[], object]], None]
) -> None:
    told: list[bool] = []
    with RedisServer(tmp_path) as server:
        url = server.url
    with connect(url) as client:
        speaker = Delivery(client)
        thread = threading.Thread(target=lambda: told.append(speaker.deliver("server1", EVENT)))
        thread.start()
        with RedisServer(tmp_path) as again:
            assert again.url == url
            thread.join(10)
            assert told == [True]
            assert events_in(client, broker.events_stream("server1")) == [EVENT]


def test_patience_ends(nobody: "redis.Redis", caplog: pytest.LogCaptureFixture) -> None:
    assert not Delivery(nobody, away_patience_seconds=0.1).deliver("server1", EVENT)
    assert "job1: given up" in caplog.text


def test_a_redis_that_refuses_is_given_less_time(
    client: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    client.set(broker.events_stream("server1"), "no stream")
    assert not Delivery(client, refused_patience_seconds=0.1).deliver("server1", EVENT)
    assert "job1: given up" in caplog.text


def test_hurry_shortens_the_patience(
    nobody: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STOPPING_PATIENCE_SECONDS", 0.1)
    speaker = Delivery(nobody)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(speaker.deliver("server1", EVENT)))
    thread.start()
    speaker.hurry()
    thread.join(5)
    assert told == [False]


def test_small_news_do_not_wait(nobody: "redis.Redis") -> None:
    speaker = Delivery(nobody)
    speaker.announce("server1", EVENT)
    speaker.report("server1", Stepped("job1", 1, "worker", 1, 4))
    assert not speaker.flags("job1", 1).is_cancelled


def test_what_is_large_goes_by_the_patient_client(
    client: "redis.Redis", nobody: "redis.Redis"
) -> None:
    speaker = Delivery(nobody, patient=client, away_patience_seconds=0.0)
    small, large = (
        Drawn(f"job{size}", 1, "worker", b"x" * size, 1.0) for size in (10, delivery.LARGE_BYTES)
    )
    assert not speaker.deliver("server1", small)
    assert speaker.deliver("server1", large)
    assert events_in(client, broker.events_stream("server1")) == [large]


def test_idle_connections_are_forgotten(client: "redis.Redis", redis_url: str) -> None:
    with connect(redis_url) as other:
        before = other.client_id()
        assert other.client_id() == before
        delivery.forget_idle(other)
        assert other.client_id() != before


@pytest.mark.parametrize("url", ["host:6379", "http://host", "redis://host:port/0"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="address of Redis"):
        connect(url)
