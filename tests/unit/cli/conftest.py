"""Runs `sdq` as a process of its own, against a scripted server in the test's loop."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

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
