"""`sdq up`: Redis, server and worker on this machine, in the foreground, as one."""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sdq.config import Settings, split_address, variable_of
from sdq.errors import StackError, UsageError
from sdq.protocol.constants import DEFAULT_PORT
from sdq.protocol.messages import WorkerStatus
from sdq.stack.console import printable, say
from sdq.stack.probe import read_address, wait_for_server, wait_for_worker
from sdq.stack.serve import address_file_of, hold, join_address, start_redis, warn_if_open
from sdq.stack.serve import run_server as run_server  # both commands are found here
from sdq.stack.signals import StopSignals
from sdq.stack.supervisor import Child, Supervisor, run_to_end
from sdq.storage import LockFile, LockHeld

SERVER_READY_TIMEOUT_SECONDS = 30.0
WORKER_READY_TIMEOUT_SECONDS = 900.0
"""Loading a large model from a slow disk takes minutes; a worker that cannot load it exits."""

WORKER_HURRY_SECONDS = 4.0
WORKER_STOP_SECONDS = 8.0
"""Ctrl-C should not take a minute: a picture that takes longer is given back, and drawn after the
next start."""


def run_up(settings: Settings, *, models: Sequence[str] = ()) -> int:
    """Runs the whole stack until SIGINT (130) or SIGTERM (0) and returns that exit code.

    ``models``: those to install, none for the server's default. Raises `StackError`: it
    runs already in this home, or a part does not start or keeps crashing.
    """
    return asyncio.run(_up(settings, models))


async def _up(settings: Settings, models: Sequence[str]) -> int:
    with StopSignals() as signals, _only_one(settings) as lock, ExitStack() as held:
        async with Supervisor() as supervisor:
            await signals.interrupt(_Parts(settings, models, supervisor, lock).run(held))
            if signals.stop.is_set():
                say("sdq stops …")
    return signals.exit_code


@contextmanager
def _only_one(settings: Settings) -> Iterator[LockFile]:
    """Holds the home. Raises `StackError` naming who holds it already."""
    try:
        lock = hold(settings.home.run_dir / "up.lock")
    except LockHeld as held:
        address = held.holder.get("address")
        where = f"at {printable(str(address))}" if address else "and is just starting"
        raise StackError(
            f"sdq up already runs in {settings.home.root} (process {held.pid}) {where}",
            hint="use that one, or start another with SDQ_HOME=/another/place and --port",
        ) from None
    with lock:
        yield lock


class _Parts:
    """Starts the parts in their order."""

    def __init__(
        self, settings: Settings, models: Sequence[str], supervisor: Supervisor, lock: LockFile
    ) -> None:
        self._settings = settings
        self._models = models
        self._supervisor = supervisor
        self._lock = lock
        self._logs = settings.home.run_dir
        self._env = environment_of(settings)
        self._host, self._port = "", 0

    async def run(self, held: ExitStack) -> None:
        """Starts all, says so, and waits until something fails for good or it is cancelled."""
        warn_if_open(self._settings.server.host)
        redis_log = self._logs / "redis.log"
        redis_url = await start_redis(self._settings, self._supervisor, held, redis_log)
        self._env[variable_of("server.redis")] = redis_url  # not a flag: it holds a password
        await self._start_server()
        await self._install()
        self._announce(await self._start_worker())
        await self._supervisor.failed()

    async def _start_server(self) -> None:
        address_file = address_file_of(self._settings)
        address_file.unlink(missing_ok=True)  # of a server that was killed
        server = Child(
            "server",
            _sdq("server"),
            self._logs / "server.log",
            env=self._env.copy(),
            ready=lambda: wait_for_server(address_file),
            ready_timeout_seconds=SERVER_READY_TIMEOUT_SECONDS,
        )
        await self._supervisor.start(server)
        self._host, self._port = read_address(address_file)
        address = join_address(self._host, self._port)
        self._lock.write(address=address)
        server.env[variable_of("server.port")] = str(self._port)  # the same after a crash
        self._env[variable_of("client.server")] = address

    async def _install(self) -> None:
        chosen = [word for model in self._models for word in ("--model", model)]
        if await run_to_end(_sdq("worker", "install", *chosen), self._env):
            raise StackError(
                "the worker could not be installed, so nothing can be drawn here",
                hint="the lines above say why; `sdq server` runs a server without a worker",
            )

    async def _start_worker(self) -> WorkerStatus:
        found: list[WorkerStatus] = []

        async def ready() -> None:
            found.append(await wait_for_worker(self._host, self._port))

        worker = Child(
            "worker",
            _sdq("worker", "run"),
            self._logs / "worker.log",
            env=self._env.copy(),
            ready=ready,
            ready_timeout_seconds=WORKER_READY_TIMEOUT_SECONDS,
            stop_timeout_seconds=WORKER_STOP_SECONDS,
            hurry_after_seconds=WORKER_HURRY_SECONDS,
            may_leave=True,  # `sdq worker drain`
        )
        await self._supervisor.start(worker)
        return found[-1]

    def _announce(self, worker: WorkerStatus) -> None:
        address = join_address(self._host, self._port)
        flag = "" if self._is_default() else f" --server {address}"
        say(
            f"sdq is ready at {address}, drawing on {printable(worker.device)}\n"
            f'  try:  sdq generate{flag} "a red circle on a blue background" -o out.png\n'
            "  stop: Ctrl-C"
        )

    def _is_default(self) -> bool:
        """Whether a client with the same settings finds this server by itself."""
        try:
            default = split_address(self._settings.client.server, DEFAULT_PORT)
        except UsageError:
            return False
        return default == (self._host, self._port)


def _sdq(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sdq", *arguments]


def environment_of(settings: Settings) -> dict[str, str]:
    """An environment in which a child finds exactly these settings."""
    values = {
        "SDQ_HOME" if name == "home" else variable_of(name): str(value)
        for name, value, _ in settings.rows()
    }
    return os.environ | values
