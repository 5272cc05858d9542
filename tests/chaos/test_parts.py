"""Parts that are killed, stopped, and kept; with processes that do nothing."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import psutil
import pytest

from sdq.errors import StackError
from sdq.testing.chaos.parts import Part
from sdq.testing.chaos.people import was_at_the_door
from sdq.testing.chaos.plan import Target

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Kept:
    """A part of a Python program, and the process ids that it had."""

    def __init__(self, log_file: Path, program: str) -> None:
        self.failures_to_prepare = 0
        self._program = program
        self.part = Part("part", Target.WORKER, self._prepare, dict(os.environ), log_file)

    async def _prepare(self) -> Sequence[str]:
        if self.failures_to_prepare:
            self.failures_to_prepare -= 1
            raise StackError("the port is taken")
        return [sys.executable, "-c", self._program]

    @property
    def pids(self) -> list[int]:
        if not self.part.log_file.exists():
            return []
        lines = self.part.log_file.read_text().splitlines()
        return [int(line) for line in lines if line.isdigit()]


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[Callable[..., Kept]]:
    kept: list[Kept] = []

    def keep(program: str = SLEEP, failures_to_prepare: int = 0) -> Kept:
        kept.append(Kept(tmp_path / f"{len(kept)}.log", program))
        kept[-1].failures_to_prepare = failures_to_prepare
        kept[-1].part.keep()
        return kept[-1]

    yield keep
    for one in kept:
        await one.part.close()


async def test_a_killed_part_is_started_again(keep: Callable[..., Kept]) -> None:
    kept = keep()
    await until(lambda: len(kept.pids) == 1)
    kept.part.kill(away_seconds=0.1)
    assert not kept.part.is_running
    await until(lambda: len(kept.pids) == 2)
    assert not psutil.pid_exists(kept.pids[0])
    assert kept.part.surprises == []
    assert kept.part.is_running
    await kept.part.close()
    assert not psutil.pid_exists(kept.pids[1])


async def test_a_stopped_part_goes_on(keep: Callable[..., Kept]) -> None:
    kept = keep()
    await until(lambda: len(kept.pids) == 1)
    process = psutil.Process(kept.pids[0])
    kept.part.stop()
    await until(lambda: process.status() == psutil.STATUS_STOPPED)
    assert not kept.part.is_running
    kept.part.go_on()
    await until(lambda: process.status() != psutil.STATUS_STOPPED)
    assert kept.part.is_running


async def test_a_stopped_part_does_not_stay_behind(keep: Callable[..., Kept]) -> None:
    kept = keep()
    await until(lambda: len(kept.pids) == 1)
    kept.part.stop()
    await kept.part.close()
    assert not psutil.pid_exists(kept.pids[0])


async def test_an_end_that_nobody_asked_for_is_noted(keep: Callable[..., Kept]) -> None:
    kept = keep("import sys; print(1, flush=True); sys.exit(7)")
    await until(lambda: len(kept.pids) == 2)
    assert kept.part.surprises[0].exit_code == 7


async def test_a_part_that_cannot_be_prepared_is_tried_again(keep: Callable[..., Kept]) -> None:
    kept = keep(failures_to_prepare=1)
    await until(lambda: len(kept.pids) == 1)
    assert "the port is taken" in kept.part.log_file.read_text()


async def test_a_gentle_end_gives_the_exit_code(keep: Callable[..., Kept]) -> None:
    program = "import signal, sys; signal.signal(15, lambda *_: sys.exit(4)); " + SLEEP
    kept = keep(program)
    await until(lambda: len(kept.pids) == 1)
    assert await kept.part.close(gently=True) == 4


@pytest.mark.parametrize(
    ("exit_code", "took_seconds", "said", "expected"),
    [
        (3, 0.3, "error: cannot reach 127.0.0.1:7433", True),
        (3, 30.0, "error: cannot reach 127.0.0.1:7433", False),
        (3, 2.0, "reconnecting…\nerror: cannot reach 127.0.0.1:7433", False),
        (1, 0.3, "error: cannot reach 127.0.0.1:7433", False),
        (0, 0.3, "", False),
    ],
)
def test_only_who_asked_for_nothing_yet_is_at_the_door(
    exit_code: int, took_seconds: float, said: str, expected: bool
) -> None:
    assert was_at_the_door(exit_code, took_seconds, said) is expected
