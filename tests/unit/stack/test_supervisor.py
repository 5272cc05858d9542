"""The supervisor: order, restarts with growing pauses, giving up, and leaving nothing behind."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sdq.errors import StackError
from sdq.stack import supervisor
from sdq.stack.supervisor import Child, RestartPolicy, Supervisor, run_to_end

QUICK = RestartPolicy(first_pause_seconds=0.05, longest_pause_seconds=0.1)

CHILD = """
import os, sys, signal, time
from pathlib import Path
name, folder = sys.argv[1], Path(sys.argv[2])
def note(word):
    with (folder / "notes").open("a") as file:
        file.write(f"{name} {word}\\n")
def stop(*_):
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if name == "deaf" else stop)
note("started")
(folder / f"{name}.pid").write_text(str(os.getpid()))
time.sleep(60)
"""

SUPERVISED = """
import asyncio, sys
from pathlib import Path
from sdq.stack.supervisor import Child, Supervisor
async def main(folder):
    async with Supervisor() as supervisor:
        for name in ("one", "two"):
            argv = [sys.executable, "-c", sys.argv[2], name, str(folder)]
            await supervisor.start(Child(name, argv, folder / "log"))
        print("up", flush=True)
        await supervisor.failed()
asyncio.run(main(Path(sys.argv[1])))
"""


class Stage:
    """A folder in which children leave notes, and a supervisor that is told on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.supervisor = Supervisor(tell=self.told.append, policy=QUICK)

    def child(self, name: str, code: str = CHILD) -> Child:
        argv = [sys.executable, "-c", code, name, str(self.folder)]
        ready = self.appears(f"{name}.pid") if code is CHILD else None
        return Child(name, argv, self.folder / "log" / name, ready=ready, stop_timeout_seconds=2)

    def appears(self, name: str) -> Callable[[], Awaitable[None]]:
        """Waits for a pid file of a living process."""

        async def appear() -> None:
            await until(lambda: self.pid(name.removesuffix(".pid")))

        return appear

    def pid(self, name: str) -> int:
        path = self.folder / f"{name}.pid"
        pid = int(path.read_text() or 0) if path.exists() else 0
        return pid if pid and psutil.pid_exists(pid) else 0

    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().splitlines()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    async with stage.supervisor:
        yield stage


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_starts_in_order_and_stops_in_reverse(stage: Stage) -> None:
    for name in ("one", "two", "three"):
        await stage.supervisor.start(stage.child(name))

    await stage.supervisor.stop()

    order = ["one", "two", "three"]
    assert stage.notes() == [f"{name} started" for name in order] + [
        f"{name} stopped" for name in reversed(order)
    ]
    assert stage.told == []


async def test_a_crashed_child_starts_again_and_that_is_said(stage: Stage) -> None:
    await stage.supervisor.start(stage.child("one"))
    first = stage.pid("one")

    os.kill(first, signal.SIGKILL)
    await until(lambda: len(stage.told) == 2)

    assert stage.pid("one") not in (0, first)
    assert stage.told[0].startswith("one was killed by SIGKILL; starting it again in 0.05 s")
    assert stage.told[1] == "one runs again"


async def test_pauses_grow_and_the_fifth_quick_crash_ends_all(stage: Stage) -> None:
    code = "import sys; print('fine'); print('\\x1b[31mcannot go on', flush=True); sys.exit(9)"
    other = stage.child("other")
    await stage.supervisor.start(other)
    crashing = stage.child("bad", code)
    await stage.supervisor.start(crashing)  # without `ready`, started is ready

    async with asyncio.timeout(10):
        with pytest.raises(StackError) as error:
            await stage.supervisor.failed()

    assert error.value.message.startswith("bad ended with exit code 9, 5 times in a row")
    assert "\n  fine\n  �[31mcannot go on" in error.value.message
    assert str(crashing.log_file) in error.value.hint
    pauses = [line.split(" again in ")[1].split(" (")[0] for line in stage.told]
    assert pauses == ["0.05 s", "0.1 s", "0.1 s", "0.1 s"]
    await stage.supervisor.stop()
    assert "other stopped" in stage.notes()


async def test_a_child_that_never_got_ready_is_not_tried_again(stage: Stage) -> None:
    child = stage.child("bad", "raise SystemExit('port taken')")
    child.ready = stage.appears("never")

    with pytest.raises(StackError, match="bad does not start: it ended with exit code 1") as error:
        await stage.supervisor.start(child)

    assert "port taken" in error.value.message
    assert stage.told == []
    await stage.supervisor.start(stage.child("good"))  # the caller may try something else


async def test_a_log_that_cannot_be_written_is_told_with_its_name(stage: Stage) -> None:
    (stage.folder / "log").touch()  # where the folder of the logs should be

    with pytest.raises(StackError, match=r"cannot write .*log/good"):
        await stage.supervisor.start(stage.child("good"))


async def test_a_program_that_cannot_be_begun_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = stage.child("good")
    await stage.supervisor.start(child)
    tries: list[object] = []
    original = supervisor.spawn

    async def spawn(*arguments: Any, **named: Any) -> Any:
        tries.append(arguments)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, "too many open files")
        return await original(*arguments, **named)

    monkeypatch.setattr(supervisor, "spawn", spawn)
    os.kill(stage.pid("good"), signal.SIGKILL)
    await until(lambda: len(tries) == 2)
    assert any("good could not be started: too many open files" in line for line in stage.told)


async def test_a_child_that_does_not_get_ready_in_time_is_ended(stage: Stage) -> None:
    child = stage.child("slow")
    child.ready = stage.appears("never")
    child.ready_timeout_seconds = 1

    with pytest.raises(StackError, match="slow does not start: it was not ready after 1 s"):
        await stage.supervisor.start(child)

    assert not stage.pid("slow")


async def test_starting_is_given_up_when_an_earlier_child_is(stage: Stage) -> None:
    await stage.supervisor.start(stage.child("bad", "raise SystemExit(3)"))
    waiting = stage.child("waiting")
    waiting.ready = stage.appears("never")

    async with asyncio.timeout(10):
        with pytest.raises(StackError, match="bad ended"):
            await stage.supervisor.start(waiting)


async def test_a_deaf_child_and_its_own_children_are_killed(stage: Stage) -> None:
    strangers = psutil.Process().children(recursive=True)  # of other tests
    deaf = stage.child("deaf")
    deaf.stop_timeout_seconds = 0.2
    await stage.supervisor.start(deaf)
    pid = stage.pid("deaf")
    forking = "import subprocess; subprocess.run(['sleep', '60'])"
    await stage.supervisor.start(stage.child("forking", forking))
    await until(
        lambda: [p for p in psutil.Process().children(recursive=True) if "sleep" in p.name()]
    )
    family = [p for p in psutil.Process().children(recursive=True) if p not in strangers]
    assert pid in [process.pid for process in family]

    await stage.supervisor.stop()

    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


async def test_stopping_while_a_child_starts_ends_it(stage: Stage) -> None:
    child = stage.child("slow")
    child.ready = stage.appears("never")
    start = asyncio.create_task(stage.supervisor.start(child))
    await until(lambda: stage.pid("slow"))

    start.cancel()
    await asyncio.wait({start})
    await stage.supervisor.stop()

    assert stage.notes() == ["slow started", "slow stopped"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SUPERVISED, str(tmp_path), CHILD]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 2
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


async def test_run_to_end_gives_the_exit_code_and_ends_when_cancelled(tmp_path: Path) -> None:
    assert await run_to_end([sys.executable, "-c", "raise SystemExit(4)"], os.environ) == 4

    argv = [sys.executable, "-c", CHILD, "slow", str(tmp_path)]
    running = asyncio.create_task(run_to_end(argv, os.environ))
    await until((tmp_path / "slow.pid").exists)
    running.cancel()
    await asyncio.wait({running})

    assert (tmp_path / "notes").read_text().splitlines() == ["slow started", "slow stopped"]


async def test_a_child_that_may_leave_stays_away_after_a_clean_end(stage: Stage):
    leaving = stage.child("worker")
    leaving.may_leave = True
    await stage.supervisor.start(stage.child("other"))
    await stage.supervisor.start(leaving)
    os.kill(stage.pid("worker"), signal.SIGTERM)
    await until(lambda: "worker was told to end, and did: it stays away" in stage.told)
    with pytest.raises(TimeoutError):  # the others go on, and nothing counts as failed
        async with asyncio.timeout(0.3):
            await stage.supervisor.failed()
    assert stage.notes().count("worker started") == 1
    assert stage.pid("other")


async def test_a_child_that_may_leave_is_started_again_after_a_kill(stage: Stage):
    child = stage.child("worker")
    child.may_leave = True
    await stage.supervisor.start(child)
    os.kill(stage.pid("worker"), signal.SIGKILL)
    await until(lambda: stage.notes().count("worker started") == 2)


async def test_a_child_in_no_hurry_is_asked_again_before_it_is_killed(stage: Stage):
    patient = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[2])
asked = []
def stop(*_):
    asked.append(1)
    with (folder / "notes").open("a") as file:
        file.write(f"asked {len(asked)}\\n")
    if len(asked) == 2:
        sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / "patient.pid").write_text(str(os.getpid()))
while True:
    time.sleep(60)
"""
    child = stage.child("patient", patient)
    child.ready = stage.appears("patient.pid")
    child.hurry_after_seconds, child.stop_timeout_seconds = 0.3, 30
    await stage.supervisor.start(child)
    await stage.supervisor.stop()
    assert stage.notes() == ["asked 1", "asked 2"]
