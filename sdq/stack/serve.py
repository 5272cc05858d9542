"""`sdq server`: the server in this process, beside a Redis of its own unless one is named."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdq.config import Settings
from sdq.errors import StackError
from sdq.stack.console import printable, say
from sdq.stack.logs import last_lines
from sdq.stack.redis import RedisServer, local_host
from sdq.stack.signals import StopSignals
from sdq.stack.supervisor import Child, Supervisor
from sdq.storage import LockFile, LockHeld, replace_file

if TYPE_CHECKING:
    from sdq.server.server import Server

LOCK_PATIENCE_SECONDS = 1.0
"""A holder that was just killed may need a moment to be gone."""

_UNREADABLE_WORDS = ("aof", "append only file", "rdb")


def run_server(settings: Settings) -> int:
    """Serves until SIGINT (130) or SIGTERM (0) and returns that exit code.

    Raises `StackError`: the address or the data is in use, Redis does not run.
    """
    _log_to_stderr()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    with StopSignals() as signals, ExitStack() as held:
        held.enter_context(in_use(settings.data_dir / "lock"))
        async with Supervisor() as supervisor:
            await signals.interrupt(_run(settings, supervisor, held))
    return signals.exit_code


async def _run(settings: Settings, supervisor: Supervisor, held: ExitStack) -> None:
    from sdq.server.server import Server  # `sdq up`, which imports this module, stays light

    redis_url = await start_redis(settings, supervisor, held)
    server = await Server.start(settings, redis_url=redis_url, worker_redis_url=redis_url)
    address_file = address_file_of(settings)
    try:
        address = join_address(local_host(settings.server.host), server.port)
        _write_at_once(address_file, address)
        _announce(settings, address, server.port)
        await _serve_beside(server, supervisor)
    finally:
        address_file.unlink(missing_ok=True)
        await server.close()


async def _serve_beside(server: "Server", supervisor: Supervisor) -> None:
    """Serves until it is cancelled, a part of it breaks, or the Redis beside it is given up."""
    tasks = {
        asyncio.create_task(server.serve_until(asyncio.Event())),
        asyncio.create_task(supervisor.failed()),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


async def start_redis(
    settings: Settings, supervisor: Supervisor, held: ExitStack, log_file: Path | None = None
) -> str:
    """The URL of the Redis that the settings name, or of one of our own under the supervisor.

    ``held`` keeps the lock on its directory and must outlive the supervisor. Our own listens
    where the server does, so that workers reach both; one that cannot read its stored queue
    begins with an empty one. Raises `StackError`.
    """
    if settings.server.redis:
        return settings.server.redis
    directory = settings.data_dir / "redis"
    held.enter_context(in_use(directory / "lock"))
    redis = RedisServer(directory, host=settings.server.host, port=settings.server.redis_port)
    argv = await asyncio.to_thread(redis.prepare)
    child = Child("redis", argv, log_file or redis.log_file, ready=redis.wait_until_it_answers)
    try:
        await supervisor.start(child)
    except StackError:
        words = " ".join(last_lines(child.log_file)).lower()
        aside = any(word in words for word in _UNREADABLE_WORDS) and redis.set_aside()
        if not aside:
            raise
        say(f"redis cannot read its stored queue: moved to {aside}, the server refills it")
        await supervisor.start(child)
    return redis.url


def hold(lock_file: Path) -> LockFile:
    """Takes a lock. Raises `LockHeld`, and `StackError` when the file cannot be written."""
    try:
        return LockFile(lock_file, patience_seconds=LOCK_PATIENCE_SECONDS).acquire()
    except OSError as error:
        raise StackError(
            f"cannot write {lock_file}: {error.strerror}",
            hint="choose another place with SDQ_HOME or --data-dir",
        ) from error


@contextmanager
def in_use(lock_file: Path) -> Iterator[None]:
    """Holds a data directory. Raises `StackError` when another process does."""
    try:
        lock = hold(lock_file)
    except LockHeld as held:
        raise StackError(
            f"another sdq (process {held.pid}) uses {lock_file.parent}",
            hint="use that one, or choose another place with --data-dir",
        ) from None
    with lock:
        yield


def address_file_of(settings: Settings) -> Path:
    """Where a running server writes the address at which this machine reaches it."""
    return settings.data_dir / "address"


def join_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def warn_if_open(host: str) -> None:
    """Says what listening beyond this machine means at present."""
    if host not in ("127.0.0.1", "::1", "localhost"):
        say(
            f"warning: listening on {host or 'all addresses'} without encryption or tokens: "
            "whoever reaches this port can draw, read the library and the Redis password; "
            "only for networks that you trust"
        )


def _announce(settings: Settings, address: str, port: int) -> None:
    warn_if_open(settings.server.host)
    host = settings.server.host
    if local_host(host) != host:
        address = join_address(socket.gethostname(), port)
    say(f"sdq server listens on {join_address(host, port)}, data in {settings.data_dir}")
    say(f"  next: sdq worker install --server {address} && sdq worker run")


def _write_at_once(path: Path, text: str) -> None:
    try:
        replace_file(path, f"{text}\n".encode(), mode=0o644)
    except OSError as error:
        raise StackError(
            f"cannot write {path}: {error.strerror}",
            hint="make room, or choose another place with --data-dir",
        ) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _PrintableFormatter(logging.Formatter):
    """Prompts and names from outside reach the log without control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("sdq").setLevel(logging.INFO)
