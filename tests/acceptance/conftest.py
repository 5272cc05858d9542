"""`sdq` as a process: run it, start its servers, wait for what they say."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

START_SECONDS = 90.0


class Running:
    """A long-running ``sdq`` command and what it said on standard error."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        env: dict[str, str],
        said_file: Path,
        limit_bytes: int | None = None,
    ) -> None:
        self._said_file = said_file

        def limit() -> None:
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        with said_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sdq", *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=limit,
            )

    @property
    def said(self) -> str:
        return self._said_file.read_text()

    def until(self, condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
        """Waits for a condition as long as the process lives."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Sdq:
    """The command with a home of its own. ``server`` is where its clients ask."""

    def __init__(self, folder: Path, home: str = "home") -> None:
        self.folder = folder
        self.home = folder / home
        self.env = os.environ | {
            "SDQ_HOME": str(self.home),
            "SDQ_WORKER_MEASURE_SECONDS": "0",  # seconds for each home; test_parts has it measured
            "COLUMNS": "80",
        }
        self._started: list[Running] = []

    def __call__(
        self, *arguments: str, stdin: str = "", seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end in `folder`."""
        return subprocess.run(
            [sys.executable, "-m", "sdq", *arguments],
            cwd=self.folder,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self, *arguments: str, limit_bytes: int | None = None) -> Running:
        """Starts a command that goes on; it is ended with the fixture.

        ``limit_bytes``: no file that it writes may become larger, as on a full disk.
        """
        name = f"{self.home.name}-{len(self._started)}-said.txt"
        running = Running(arguments, self.env, self.folder / name, limit_bytes)
        self._started.append(running)
        return running

    def serve(self, *arguments: str) -> Running:
        """A server on a free port; commands of this `Sdq` ask it."""
        address = self.home / "server" / "address"
        address.unlink(missing_ok=True)
        running = self.start("server", "--port", "0", *arguments)
        running.until(address.exists)
        self.env["SDQ_SERVER"] = address.read_text().strip()
        return running

    def up(self) -> Running:
        """The whole stack, ready to draw."""
        running = self.start("up", "--port", "0")
        running.until(lambda: "sdq is ready" in running.said)
        self.env["SDQ_SERVER"] = (self.home / "server" / "address").read_text().strip()
        return running

    def close(self) -> None:
        for running in reversed(self._started):
            running.end()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdq]:
    """One `sdq up` for a module."""
    sdq = Sdq(tmp_path_factory.mktemp("up"))
    try:
        sdq.up()
        yield sdq
    finally:
        sdq.close()


@pytest.fixture
def sdq(tmp_path: Path) -> Iterator[Sdq]:
    """The command with an empty home."""
    sdq = Sdq(tmp_path)
    yield sdq
    sdq.close()
