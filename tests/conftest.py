"""Fixtures for all tests: a clean environment, a real Redis, a free port."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdq.stack.redis import RedisServer
from sdq.stack.redis import free_port as choose_free_port


def pytest_configure() -> None:
    """One thread for each process that computes, unless `OMP_NUM_THREADS` says otherwise.

    The models of the tests are small, and the machine is shared by all that a test starts: threads
    that wait for each other by spinning take ten times as long as one alone. Torch reads this when
    it is imported, so it must be said before the tests are.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    """No test reaches for the internet, and no setting of the developer reaches a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SDQ_"):
                patch.delenv(name)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(autouse=True)
def sdq_home(_offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home of sdq for this test, and for the processes that it starts. Not created."""
    home = tmp_path / "home"
    monkeypatch.setenv("SDQ_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture
def redis_url(_redis: RedisServer) -> str:
    """The URL of a real Redis, empty; one server for the whole session.

    A test that kills or stops its Redis starts one of its own with `RedisServer`.
    """
    assert _redis.call("FLUSHALL") == "+OK"
    return _redis.url


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    return choose_free_port()
