"""`sdq up` as people meet it: one command, a picture, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

READY = re.compile(r"^sdq is ready at (\S+), drawing on (.+)$", re.MULTILINE)
PROMPT = "a red circle on a blue background"

pytestmark = pytest.mark.timeout(300)  # whole processes that load a model, on a busy machine


class Up:
    """A running `sdq up`, its process and what it said."""

    def __init__(self, home: Path, said_file: Path) -> None:
        self.said_file = said_file
        self.env = os.environ | {"SDQ_HOME": str(home), "SDQ_WORKER_MEASURE_SECONDS": "0"}
        with said_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sdq", "up", "--port", "0"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def said(self) -> str:
        return self.said_file.read_text()

    def address(self) -> str:
        """Waits for the ready line."""
        self.until(lambda: READY.search(self.said), 90)
        found = READY.search(self.said)
        assert found
        return found[1]

    def until(self, condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def sdq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sdq", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def generate(self, *arguments: str) -> dict[str, object]:
        done = self.sdq("generate", "--server", self.address(), "--json", *arguments)
        assert done.returncode == 0, done.stderr
        picture: dict[str, object] = json.loads(done.stdout)
        return picture

    def parts(self) -> dict[str, psutil.Process]:
        """The children: redis, server, worker."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            words = " ".join(child.cmdline())
            name = next(name for name in ("sdq server", "sdq worker", "-server") if name in words)
            found[{"-server": "redis"}.get(name, name.removeprefix("sdq "))] = child
        return found

    def end(self, number: signal.Signals) -> tuple[int, float, list[psutil.Process]]:
        """Exit code, seconds that it took, and the processes that are still there."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(30)
        seconds = time.monotonic() - began
        return code, seconds, psutil.wait_procs(family, timeout=5)[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the module: the model is installed once."""
    return tmp_path_factory.mktemp("up") / "home"


@pytest.fixture
def up(home: Path, tmp_path: Path) -> Iterator[Up]:
    up = Up(home, tmp_path / "said")
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait(10)


def test_one_command_draws_refuses_a_twin_and_ends_on_ctrl_c(up: Up, tmp_path: Path) -> None:
    address = up.address()
    assert f'sdq generate --server {address} "{PROMPT}" -o out.png' in up.said

    out = tmp_path / "out.png"
    assert up.generate(PROMPT, "-o", str(out))["cache"] == "made"
    assert out.read_bytes().startswith(b"\x89PNG")
    again = up.generate(PROMPT, "-o", str(tmp_path / "again.png"))
    assert again["cache"] == "hit"
    assert (tmp_path / "again.png").read_bytes() == out.read_bytes()

    twin = up.sdq("up", "--port", "0")
    assert twin.returncode == 1
    assert f"already runs in {up.env['SDQ_HOME']} (process {up.process.pid})" in twin.stderr
    assert f"at {address}" in twin.stderr
    assert twin.stdout == ""

    words = [word for part in up.parts().values() for word in part.cmdline()]
    assert not any("redis://" in word for word in words)  # it would show the password

    code, seconds, alive = up.end(signal.SIGINT)
    assert (code, alive) == (130, [])
    assert seconds < 10
    assert "Traceback" not in up.said


def test_a_killed_part_comes_back_and_a_killed_whole_leaves_nothing(up: Up, tmp_path: Path) -> None:
    address = up.address()
    for name in ("worker", "server", "redis"):
        before = up.parts()[name]
        before.kill()
        up.until(lambda name=name: f"{name} runs again" in up.said, 60)  # type: ignore[misc]
        assert f"{name} was killed by SIGKILL; starting it again in " in up.said
        assert up.parts()[name].pid != before.pid
        made = up.generate(PROMPT, "--new", "-o", str(tmp_path / f"{name}.png"))
        assert made["cache"] == "made"
    assert up.address() == address

    if sys.platform == "linux":
        assert up.end(signal.SIGKILL)[2] == []


def test_sigterm_while_it_starts_ends_it_cleanly(up: Up) -> None:
    up.until(lambda: len(psutil.Process(up.process.pid).children()) >= 2, 30)

    code, seconds, alive = up.end(signal.SIGTERM)

    assert (code, alive) == (0, [])
    assert seconds < 10
    assert "Traceback" not in up.said
