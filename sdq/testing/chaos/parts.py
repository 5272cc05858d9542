"""The parts of a stack as processes that are started again whenever they end."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sdq.config import Home
from sdq.errors import ConnectionFailed, StackError
from sdq.protocol.messages import Status
from sdq.stack.probe import ask_status
from sdq.stack.redis import RedisServer, free_port
from sdq.stack.supervisor import end
from sdq.stack.tether import tethered
from sdq.testing.chaos.plan import Scale, Target

START_SECONDS = 90.0
"""A whole stack stands by then, on a busy machine too."""

MAX_SURPRISES = 5
"""A part that ends by itself more often does not stand."""

END_SECONDS = 15.0
_POLL_SECONDS = 0.1
_PAUSE_AFTER_A_SURPRISE_SECONDS = 0.5


async def spawn(
    argv: Sequence[str], env: Mapping[str, str], said: Path, *, stdin: Path | None = None
) -> Process:
    """A process in a group of its own that dies with us; both its streams go to ``said``."""
    with said.open("ab") as output, (stdin or Path(os.devnull)).open("rb") as source:
        return await asyncio.create_subprocess_exec(
            *tethered(argv),
            env=dict(env),
            stdin=source.fileno() if stdin else DEVNULL,
            stdout=output.fileno(),
            stderr=output.fileno(),
            start_new_session=True,
        )


@dataclass(frozen=True)
class Surprise:
    """A part ended without having been killed."""

    part: str
    at: float
    exit_code: int


class Part:
    """A process under a tiny supervisor, that can be killed and stopped.

    ``prepare`` gives the command line before each start; it may raise `StackError`, and is then
    called again a little later.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        prepare: Callable[[], Awaitable[Sequence[str]]],
        env: Mapping[str, str],
        log_file: Path,
    ) -> None:
        self.name = name
        self.target = target
        self.log_file = log_file
        self.surprises: list[Surprise] = []
        self._prepare = prepare
        self._env = env
        self._process: Process | None = None
        self._is_stopped = False
        self._away_seconds: float | None = None  # set by whoever kills it
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """It can be hit: neither away nor stopped nor dying."""
        return self._process is not None and not self._is_stopped and self._away_seconds is None

    def keep(self) -> None:
        """Starts it, and again whenever it ends, until `close`."""
        self._keeper = asyncio.create_task(self._keep_running(), name=f"keep {self.name}")

    def kill(self, away_seconds: float) -> None:
        """``kill -9``; it is started again after ``away_seconds``."""
        assert self._process is not None
        self._away_seconds = away_seconds
        self._process.kill()

    def stop(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._is_stopped = True
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._is_stopped = False
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)

    async def close(self, *, gently: bool = False) -> int | None:
        """Ends it for good. Its exit code; 0 when it was away, ``None`` when it was killed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if (process := self._process) is None:
            return 0
        try:
            if gently:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(process.wait(), END_SECONDS)
            return None
        finally:
            await end(process, 0)

    async def _keep_running(self) -> None:
        while True:
            try:
                argv = await self._prepare()
            except StackError as error:
                with self.log_file.open("a") as log:
                    log.write(f"chaos: {error.message}\n")
                await asyncio.sleep(_PAUSE_AFTER_A_SURPRISE_SECONDS)
                continue
            self._process = await spawn(argv, self._env, self.log_file)
            exit_code = await self._process.wait()
            self._process = None
            if self._away_seconds is None:
                self.surprises.append(Surprise(self.name, time.time(), exit_code))
            await asyncio.sleep(self._away_seconds or _PAUSE_AFTER_A_SURPRISE_SECONDS)
            self._away_seconds = None


class Stack:
    """Redis, server and workers on 127.0.0.1, in a folder. An async context manager.

    From the main thread only: its processes shall not outlive this one.
    """

    def __init__(self, folder: Path, scale: Scale, fingerprint: str) -> None:
        self.folder = folder
        self.scale = scale
        self.fingerprint = fingerprint
        self.logs = folder / "logs"
        self.data_dir = folder / "server"
        self.redis = RedisServer(folder / "redis", port=free_port(), tell=lambda text: None)
        self.port = free_port()
        self.empty_redis = False  # its next start finds nothing
        self.parts: list[Part] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def drawn_log(self) -> Path:
        return self.folder / "drawn.log"

    def home(self, name: str) -> Home:
        """Of a part or a person."""
        return Home(self.folder / "homes" / name)

    def env(self, name: str) -> dict[str, str]:
        """The environment of a process with a home of its own."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SDQ_")}
        return clean | {
            "SDQ_HOME": str(self.home(name).root),
            "SDQ_SERVER": self.address,
            # Unmeasured, workers draw in full numbers: their pictures are compared with others.
            "SDQ_WORKER_MEASURE_SECONDS": "0",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
        }

    async def __aenter__(self) -> "Stack":
        self.logs.mkdir(parents=True)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._start()
        except BaseException:  # Ctrl-C too leaves no process; raised again
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        self._add("redis", Target.REDIS, self._redis_command)
        await self.redis.wait_until_it_answers()
        self._add("server", Target.SERVER, self._server_command)
        await self.until(lambda status: status.redis == "ok")
        for number in range(1, self.scale.workers + 1):
            name = f"worker-{number}"
            if self.scale.is_real:
                await self._install(name)
            self._add(name, Target.WORKER, self._worker_command(name))
        await self.until(lambda status: len(status.workers) == self.scale.workers)

    def _add(
        self, name: str, target: Target, prepare: Callable[[], Awaitable[Sequence[str]]]
    ) -> None:
        env = self.env(name) | {"SDQ_DEBUG": "1"}  # tracebacks of what was not foreseen
        part = Part(name, target, prepare, env, self.logs / f"{name}.log")
        self.parts.append(part)
        part.keep()

    async def status(self) -> Status | None:
        """What the server says of itself; ``None`` when it says nothing."""
        try:
            return await ask_status("127.0.0.1", self.port)
        except ConnectionFailed:
            return None

    async def until(self, condition: Callable[[Status], bool]) -> None:
        """Until the server answers and the condition holds; cancel it. Raises `StackError`."""
        while True:
            status = await self.status()
            if status is not None and condition(status):
                return
            for part in self.parts:
                if len(part.surprises) >= MAX_SURPRISES:
                    raise StackError(
                        f"{part.name} ends by itself, again and again",
                        hint=f"see {part.log_file}",
                    )
            await asyncio.sleep(_POLL_SECONDS)

    async def end_gently(self) -> list[str]:
        """SIGTERM to the server and the workers; what did not end well, in words."""
        wrong = []
        for part in reversed(self.parts):
            if part.target is not Target.REDIS:
                exit_code = await part.close(gently=True)
                if exit_code is None:
                    wrong.append(f"{part.name} did not end within {END_SECONDS:g} s of SIGTERM")
                elif exit_code:
                    wrong.append(f"{part.name} ended with {exit_code} after SIGTERM")
        return wrong

    async def _end(self) -> None:
        for part in reversed(self.parts):
            await part.close()

    async def _redis_command(self) -> Sequence[str]:
        if self.empty_redis:
            self.empty_redis = False
            shutil.rmtree(self.redis.directory / "appendonlydir", ignore_errors=True)
        return await asyncio.to_thread(self.redis.prepare)

    async def _server_command(self) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "sdq", "server", "--port", str(self.port)),
            *("--redis", self.redis.url, "--data-dir", str(self.data_dir)),
        ]

    def _worker_command(self, name: str) -> Callable[[], Awaitable[Sequence[str]]]:
        async def command() -> Sequence[str]:
            if self.scale.is_real:
                return [sys.executable, "-m", "sdq", "worker", "run"]
            return [
                *(sys.executable, "-m", "sdq.testing.worker", str(self.home(name).root)),
                *("--redis", self.redis.url, "--worker-id", name),
                *("--fingerprint", self.fingerprint, "--drawn-log", str(self.drawn_log)),
                *("--seconds-per-step", str(self.scale.seconds_per_step)),
            ]

        return command

    async def _install(self, name: str) -> None:
        """``sdq worker install``, once for each worker. Raises `StackError`."""
        argv = [sys.executable, "-m", "sdq", "worker", "install"]
        log_file = self.logs / f"{name}.log"
        process = await spawn(argv, self.env(name), log_file)
        try:
            if await process.wait():
                raise StackError(f"{name} could not be installed", hint=f"see {log_file}")
        finally:
            await end(process, 0)
