"""`sdq server` as a process: its own Redis, its address file, its refusals."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sdq.config import load
from sdq.errors import ConnectionFailed
from sdq.protocol.messages import Status
from sdq.stack.probe import ask_status, read_address
from sdq.stack.serve import address_file_of

SERVE = """
import sys
from sdq.config import load
from sdq.errors import SdqError
from sdq.stack.up import run_server
try:
    sys.exit(run_server(load()))
except SdqError as error:
    sys.exit(f"error: {error}\\n hint: {error.hint}")
"""


class Served:
    """A server process and what it said."""

    def __init__(self, said_file: Path, **variables: str) -> None:
        self._said_file = said_file
        self._address_file = address_file_of(load())
        with said_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE],
                env=os.environ | {"SDQ_SERVER_PORT": "0"} | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def said(self) -> str:
        return self._said_file.read_text()

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    async def status(self) -> Status:
        """What it says of itself, once it listens."""
        self.until(self._address_file.exists)
        return await ask_status(*read_address(self._address_file))

    def redis(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def serve(**variables: str) -> Served:
        started.append(Served(tmp_path / f"said-{len(started)}", **variables))
        return started[-1]

    yield serve
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(10)


async def until_redis_is_ok(served: Served) -> None:
    """A server that was killed has left its address behind, where nobody answers any more."""
    deadline, found = time.monotonic() + 20, ""
    while found != "ok":
        assert served.process.poll() is None, served.said
        assert time.monotonic() < deadline, found
        try:
            found = (await served.status()).redis
        except ConnectionFailed as error:
            found = error.message
            await asyncio.sleep(0.02)


async def test_serves_with_a_redis_of_its_own_until_sigterm(
    serve: Callable[..., Served],
) -> None:
    served = serve()

    await until_redis_is_ok(served)

    host, port = read_address(address_file_of(load()))
    assert f"sdq server listens on {host}:{port}, data in " in served.said
    assert f"sdq worker install --server {host}:{port} && sdq worker run" in served.said
    assert "warning" not in served.said
    redis = served.redis()
    assert served.end(signal.SIGTERM) == 0
    assert not redis.is_running()
    assert not address_file_of(load()).exists()
    assert "Traceback" not in served.said
    with pytest.raises(ConnectionFailed):
        await ask_status(host, port)


async def test_sigint_is_130_and_redis_keeps_its_port_over_restarts(
    serve: Callable[..., Served],
) -> None:
    first = serve()
    await until_redis_is_ok(first)
    port_file = load().data_dir / "redis" / "port"
    port = port_file.read_text()
    assert first.end(signal.SIGINT) == 130

    second = serve()
    await until_redis_is_ok(second)

    assert port_file.read_text() == port


async def test_a_killed_redis_comes_back(serve: Callable[..., Served]) -> None:
    served = serve()
    await until_redis_is_ok(served)
    before = served.redis()

    before.kill()
    served.until(lambda: "redis runs again" in served.said)

    assert "redis was killed by SIGKILL; starting it again in 0.5 s" in served.said
    assert served.redis().pid != before.pid
    await until_redis_is_ok(served)


async def test_a_stored_queue_that_cannot_be_read_is_set_aside(
    serve: Callable[..., Served],
) -> None:
    first = serve()
    await until_redis_is_ok(first)
    first.end(signal.SIGTERM)
    stored = load().data_dir / "redis" / "appendonlydir"
    for manifest in stored.glob("*.manifest"):
        manifest.write_text("broken\n")

    second = serve()
    await until_redis_is_ok(second)

    assert "redis cannot read its stored queue: moved to " in second.said
    assert stored.with_name("appendonlydir.unreadable").exists()


async def test_uses_a_redis_that_is_named(serve: Callable[..., Served], redis_url: str) -> None:
    served = serve(SDQ_REDIS=redis_url)

    await until_redis_is_ok(served)

    assert psutil.Process(served.process.pid).children() == []


async def test_a_second_one_on_the_same_data_is_refused(serve: Callable[..., Served]) -> None:
    first = serve()
    await first.status()

    second = serve()

    assert second.process.wait(15) == 1
    data_dir = load().data_dir
    assert f"error: another sdq (process {first.process.pid}) uses {data_dir}" in second.said
    assert "--data-dir" in second.said
    assert (await first.status()).server


def test_a_taken_port_is_told_and_leaves_nothing(serve: Callable[..., Served]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        served = serve(SDQ_SERVER_PORT=str(port))
        code = served.process.wait(15)

    assert code == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in served.said
    assert "--port" in served.said
    assert "Traceback" not in served.said


def test_listening_beyond_this_machine_warns(serve: Callable[..., Served]) -> None:
    served = serve(SDQ_SERVER_HOST="0.0.0.0")

    served.until(lambda: "worker install" in served.said)

    assert "warning: listening on 0.0.0.0 without encryption or tokens" in served.said
    assert f"--server {socket.gethostname()}:" in served.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
async def test_a_killed_server_takes_its_redis_along_and_starts_again(
    serve: Callable[..., Served],
) -> None:
    first = serve()
    await until_redis_is_ok(first)
    redis = first.redis()

    first.end(signal.SIGKILL)
    second = serve()  # at once, while the other Redis may still be leaving

    assert psutil.wait_procs([redis], timeout=5)[1] == []
    await until_redis_is_ok(second)
    assert "moves to" not in second.said
