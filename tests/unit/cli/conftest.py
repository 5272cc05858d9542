"""Runs `sdq` as a process of its own, against a scripted server in the test's loop."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from sdq.testing.transport import ScriptedServer

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Outcome:
    """What a person would see."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()


class Running:
    """A process under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def outcome(self, stdin: bytes | None = None) -> Outcome:
        try:
            async with asyncio.timeout(20):
                stdout, stderr = await self.process.communicate(stdin)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise
        assert self.process.returncode is not None
        return Outcome(self.process.returncode, stdout, stderr.decode())


Start = Callable[..., Awaitable[Running]]
Sdq = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts ``sdq ARGUMENTS`` in the test's folder."""

    async def start_sdq(
        *arguments: str | bytes,
        server: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int = asyncio.subprocess.DEVNULL,
        stdout: int = asyncio.subprocess.PIPE,
        before: Callable[[], None] | None = None,
        program: tuple[str, ...] = ("-m", "sdq"),
    ) -> Running:
        full = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        if server is not None:
            full["SDQ_SERVER"] = server
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env=full,
            cwd=tmp_path,
            preexec_fn=before,
        )
        return Running(process)

    return start_sdq


@pytest.fixture
def sdq(start: Start) -> Sdq:
    """Runs ``sdq ARGUMENTS`` to its end."""

    async def run_sdq(*arguments: str | bytes, text: bytes | None = None, **how: object) -> Outcome:
        stdin = asyncio.subprocess.DEVNULL if text is None else asyncio.subprocess.PIPE
        running = await start(*arguments, stdin=stdin, **how)
        return await running.outcome(text)

    return run_sdq


Seen = Callable[..., Awaitable[tuple[str, int]]]


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    """Runs ``sdq ARGUMENTS`` at a terminal: all that was written to it, and the exit code.

    ``interrupt_at``: Ctrl-C is pressed when this is to be read; ``resize_at``: the window becomes
    40 columns wide then. ``env``: more of the environment.
    """

    async def run_at_terminal(
        server: ScriptedServer | None,
        *arguments: str,
        columns: int = 80,
        interrupt_at: str = "",
        resize_at: str = "",
        env: Mapping[str, str] | None = None,
    ) -> tuple[str, int]:
        full = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(env or {})}
        if server is not None:
            full["SDQ_SERVER"] = server.address

        def run() -> tuple[str, int]:
            child = pexpect.spawn(
                sys.executable, ["-m", "sdq", *arguments], env=full, cwd=str(tmp_path),
                dimensions=(24, columns), encoding="utf-8", timeout=20,
            )  # fmt: skip
            before = ""
            for pattern in filter(None, (resize_at, interrupt_at)):
                child.expect(pattern)
                before += f"{child.before}{child.after}"
                if pattern == resize_at:
                    child.setwinsize(24, 40)
                else:
                    child.sendintr()
            child.expect(pexpect.EOF)
            text = before + (child.before or "")
            child.close()
            assert child.exitstatus is not None
            return text, child.exitstatus

        return await asyncio.to_thread(run)

    return run_at_terminal
