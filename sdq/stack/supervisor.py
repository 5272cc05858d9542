"""Keeps child processes running: one after the other, again after a crash, none left behind."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sdq.errors import StackError
from sdq.stack.console import Say, say
from sdq.stack.logs import bound_logs, fresh_log, last_lines
from sdq.stack.tether import tethered


@dataclass(frozen=True)
class RestartPolicy:
    """How a crashed child is started again. Pauses double from the first to the longest."""

    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 10.0
    steady_seconds: float = 30.0  # whoever lived so long begins with the first pause again
    max_quick_crashes: int = 5


@dataclass
class Child:
    """A program that shall always run.

    ``ready`` returns once the child does its work; without it a started child is ready. Output
    goes to ``log_file``. ``env`` may be changed between two starts. ``may_leave``: once it was
    ready, its exit code 0 means that it was told to end, and it is not started again.

    A child that is told to stop gets SIGTERM, another one after ``hurry_after_seconds`` (a worker
    gives back what it is drawing then), and SIGKILL after ``stop_timeout_seconds`` in all.
    """

    name: str
    argv: Sequence[str]
    log_file: Path
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    ready: Callable[[], Awaitable[None]] | None = None
    ready_timeout_seconds: float = 60.0
    stop_timeout_seconds: float = 5.0
    hurry_after_seconds: float | None = None
    may_leave: bool = False


class Supervisor:
    """Starts children in order, restarts the crashed, stops all in reverse order at the end.

    An async context manager, used in the main thread (see ``tether.py``). Each child has a
    process group of its own, so Ctrl-C in the terminal reaches only the supervisor, and on
    Linux dies with it even on `kill -9`.
    """

    def __init__(self, *, tell: Say = say, policy: RestartPolicy | None = None) -> None:
        self._tell = tell
        self._policy = policy or RestartPolicy()
        self._watched: list[_Watched] = []
        self._log_keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Supervisor":
        self._log_keeper = asyncio.create_task(bound_logs(self._logs))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _logs(self) -> list[Path]:
        return [watched.child.log_file for watched in self._watched]

    async def start(self, child: Child) -> None:
        """Starts a child and waits until it is ready.

        A child that ends before it was ever ready is not tried again. Raises `StackError`, also
        when another child is given up meanwhile or its log cannot be written. When cancelled the
        child stays: `stop` ends it.
        """
        try:
            fresh_log(child.log_file)
        except OSError as error:
            raise StackError(
                f"cannot write {child.log_file}: {error.strerror}",
                hint="make room, or choose another place with SDQ_HOME",
            ) from error
        watched = _Watched(child, self._tell, self._policy)
        self._watched.append(watched)
        became_ready = asyncio.create_task(watched.ready.wait())
        try:
            await self._first_of(became_ready)
        except StackError:
            if watched.task.done():
                self._watched.remove(watched)  # the caller may know how to try again
            raise
        finally:
            became_ready.cancel()

    async def failed(self) -> None:
        """Waits until a child is given up; raises `StackError` then. Safe to cancel."""
        await self._first_of(asyncio.get_running_loop().create_future())

    async def _first_of(self, event: asyncio.Future[Any]) -> None:
        """Waits for the event, or for the first child to be given up, which is raised."""
        tasks: set[asyncio.Future[Any]] = {watched.task for watched in self._watched}
        done, _ = await asyncio.wait({event, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done & tasks:
            task.result()

    async def stop(self) -> None:
        """Ends all children, the last one first; takes their stop time-outs at most."""
        if self._log_keeper:
            self._log_keeper.cancel()
            await asyncio.wait({self._log_keeper})
        while self._watched:
            task = self._watched.pop().task
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # was raised by start or failed


class _Ending(NamedTuple):
    """How one run of a child ended."""

    words: str
    cleanly: bool = False


class _Watched:
    """One child and the task that keeps it running."""

    def __init__(self, child: Child, tell: Say, policy: RestartPolicy) -> None:
        self.child = child
        self.ready = asyncio.Event()  # it was ready at least once
        self._tell = tell
        self._policy = policy
        self._log_start_bytes = 0
        self.task = asyncio.create_task(self._keep_running(), name=f"watch {child.name}")

    async def _keep_running(self) -> None:
        policy, quick_crashes = self._policy, 0
        while True:
            began = time.monotonic()
            what_happened, cleanly = await self._run_once()
            if cleanly and self.child.may_leave and self.ready.is_set():
                self._tell(f"{self.child.name} was told to end, and did: it stays away")
                await asyncio.Event().wait()  # until we are cancelled
            lived_seconds = time.monotonic() - began
            quick_crashes = 1 if lived_seconds >= policy.steady_seconds else quick_crashes + 1
            if not self.ready.is_set():
                raise self._given_up(f"{self.child.name} does not start: it {what_happened}")
            if quick_crashes >= policy.max_quick_crashes:
                raise self._given_up(
                    f"{self.child.name} {what_happened}, {quick_crashes} times in a row"
                )
            pause_seconds = min(
                policy.first_pause_seconds * 2 ** (quick_crashes - 1), policy.longest_pause_seconds
            )
            self._tell(
                f"{self.child.name} {what_happened}; starting it again in {pause_seconds:g} s "
                f"(log: {self.child.log_file})"
            )
            await asyncio.sleep(pause_seconds)

    async def _run_once(self) -> _Ending:
        """Runs the child to its end; how it ended. Cancelling ends the child."""
        child, again = self.child, self.ready.is_set()
        try:
            self._log_start_bytes = _size_bytes(child.log_file)
            with child.log_file.open("ab") as log:
                process = await spawn(child.argv, child.env, output=log.fileno())
        except OSError as error:  # no process, no descriptor, no disk: perhaps the next time
            return _Ending(f"could not be started: {error.strerror}")
        exited = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._become_ready())
        try:
            await asyncio.wait({exited, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                if not ready.result():
                    return _Ending(f"was not ready after {child.ready_timeout_seconds:g} s")
                self.ready.set()
                if again and child.ready:  # without a probe nobody knows
                    self._tell(f"{child.name} runs again")
            return _ending(await exited)
        finally:
            ready.cancel()
            exited.cancel()
            await asyncio.wait({ready, exited})
            await end(process, child.stop_timeout_seconds, child.hurry_after_seconds)

    async def _become_ready(self) -> bool:
        if self.child.ready is None:
            return True
        try:
            async with asyncio.timeout(self.child.ready_timeout_seconds):
                await self.child.ready()
        except TimeoutError:
            return False
        return True

    def _given_up(self, message: str) -> StackError:
        lines = last_lines(self.child.log_file, self._log_start_bytes)
        end_of_log = "".join(f"\n  {line}" for line in lines)
        return StackError(
            f"{message}; its last words:{end_of_log}" if lines else message,
            hint=f"the whole log is {self.child.log_file}",
        )


async def spawn(
    argv: Sequence[str], env: Mapping[str, str], *, output: int | None = None
) -> Process:
    """Starts a child that dies with us, in a process group of its own, without input.

    ``output``: the descriptor for both its streams; ``None``: our standard error.
    """
    output = 2 if output is None else output
    return await asyncio.create_subprocess_exec(
        *tethered(argv),
        env=dict(env),
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


async def end(
    process: Process, timeout_seconds: float, hurry_after_seconds: float | None = None
) -> None:
    """Ends a child and what it started: SIGTERM, once more for those in no hurry, SIGKILL."""
    first_seconds = hurry_after_seconds or timeout_seconds
    try:
        for wait_seconds in (first_seconds, timeout_seconds - first_seconds):
            if process.returncode is None and wait_seconds > 0:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_seconds):
                        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def run_to_end(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs a program whose output the user sees; its exit code. Cancelling ends it."""
    process = await spawn(argv, env)
    try:
        return await process.wait()
    finally:
        await end(process, Child.stop_timeout_seconds)


def _ending(returncode: int) -> _Ending:
    if returncode >= 0:
        return _Ending(f"ended with exit code {returncode}", cleanly=returncode == 0)
    try:
        return _Ending(f"was killed by {signal.Signals(-returncode).name}")
    except ValueError:
        return _Ending(f"was killed by signal {-returncode}")


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
