"""A Redis of our own: real server, kept port and password, gone with its parent."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sdq.errors import StackError
from sdq.stack import redis as module
from sdq.stack.redis import RedisServer, find_redis_server, free_port, is_free, local_host

PARENT = """
import sys, time
from pathlib import Path
from sdq.stack.redis import RedisServer
print(RedisServer(Path(sys.argv[1])).start().pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, told: list[str]) -> Callable[..., RedisServer]:
    def make(**options: object) -> RedisServer:
        return RedisServer(tmp_path / "red is", tell=told.append, **options)  # type: ignore[arg-type]

    return make


def test_starts_needs_the_password_and_stops(make: Callable[..., RedisServer]) -> None:
    with make() as redis:
        assert redis.answers()
        assert redis.url == f"redis://:{redis.password}@127.0.0.1:{redis.port}/0"
        assert redis.call("CONFIG GET appendonly") == "*2"
        with socket.create_connection(("127.0.0.1", redis.port), 5) as stranger:
            stranger.sendall(b"GET x\r\n")
            assert stranger.recv(100).startswith(b"-NOAUTH")
        assert redis.pid
        process = psutil.Process(redis.pid)
        assert redis.password not in " ".join(process.cmdline())
    assert not process.is_running()
    assert not redis.answers()
    redis.stop()  # harmless


def test_secrets_are_for_the_owner_only(make: Callable[..., RedisServer]) -> None:
    redis = make()
    redis.prepare()

    for name in ("password", "redis.conf", "port"):
        assert stat.S_IMODE((redis.directory / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(redis.directory.stat().st_mode) == 0o700


def test_url_and_data_survive_a_kill(make: Callable[..., RedisServer]) -> None:
    with make() as redis:
        url = redis.url
        redis.call("SET job 1")
        assert redis.pid
        os.kill(redis.pid, signal.SIGKILL)
    with make() as redis:
        assert redis.url == url
        assert redis.call("GET job") == "$1"


def test_moves_when_a_stranger_sits_on_its_port(
    make: Callable[..., RedisServer], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PORT_PATIENCE_SECONDS", 0.1)
    before = make()
    before.prepare()
    with socket.create_server(("127.0.0.1", before.port)), make() as after:
        assert after.port != before.port
        assert after.password != before.password  # the stranger may have heard the old one
    assert len(told) == 1
    assert f"port {before.port} is taken" in told[0]
    assert "sdq worker install" in told[0]


def test_a_demanded_port_that_is_taken_is_an_error(
    make: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PORT_PATIENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port}.*taken") as error:
            make(port=port).prepare()
    assert "redis_port" in error.value.hint


def test_a_left_over_redis_of_ours_makes_way(make: Callable[..., RedisServer]) -> None:
    with make() as old, make() as new:
        assert new.port == old.port
        assert new.answers()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
def test_dies_with_its_parent(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        redis = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs([redis], timeout=5)
    assert alive == []


def test_an_unreadable_store_is_an_error_and_can_be_set_aside(
    make: Callable[..., RedisServer],
) -> None:
    with make() as redis:
        redis.call("SET job 1")
    assert redis.set_aside() is not None
    with make() as redis:
        redis.call("SET job 1")
    for manifest in (redis.directory / "appendonlydir").glob("*.manifest"):
        manifest.write_text("broken\n")
    with pytest.raises(StackError, match="does not start"):
        make().start()

    aside = redis.set_aside()

    assert aside
    assert aside.exists()
    with make() as redis:
        assert redis.call("GET job") == "$-1"


def test_a_redis_on_path_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-server"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_redis_server(tmp_path) == program


def test_the_packaged_one_is_copied_where_it_may_not_be_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    packaged = find_redis_server(tmp_path)
    plain = tmp_path / "package" / "valkey-server"
    plain.parent.mkdir()
    plain.write_bytes(packaged.read_bytes())
    monkeypatch.setattr(module, "_packaged", lambda: iter([plain]))

    found = find_redis_server(tmp_path)

    assert found == tmp_path / "valkey-server"
    assert subprocess.run([found, "--version"], check=True, capture_output=True).stdout


def test_without_any_redis_the_hint_says_what_to_install(
    make: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "_packaged", lambda: iter([]))

    with pytest.raises(StackError, match="no Redis") as error:
        make().start()
    assert "sdq[embedded]" in error.value.hint


def test_an_unwritable_directory_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StackError, match=str(tmp_path / "file" / "redis")):
        RedisServer(tmp_path / "file" / "redis").prepare()


def test_hosts() -> None:
    assert [local_host(host) for host in ("0.0.0.0", "::", "10.0.0.5", "localhost")] == [
        "127.0.0.1",
        "::1",
        "10.0.0.5",
        "localhost",
    ]
    assert RedisServer(Path(), host="::").url == "redis://:@[::1]:0/0"
    assert RedisServer(Path(), host="::").url_at("gpu-box") == "redis://:@gpu-box:0/0"


def test_ports() -> None:
    port = free_port()
    assert is_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free("127.0.0.1", port)
        assert not is_free("", port)
    assert not is_free("no.such.host.invalid", port)
