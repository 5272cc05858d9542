"""What the benchmarks share: a running stack, paired timings, the machine's name."""

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 180.0


@dataclass(frozen=True)
class Stack:
    """A running `sdq up` or `sdq server` with a home of its own."""

    address: str
    home: Path
    process: subprocess.Popen[bytes]
    environ: dict[str, str]


@contextmanager
def running(
    command: str, prepare: Callable[[Path], None] | None = None, *, home: Path | None = None
) -> Iterator[Stack]:
    """Runs ``sdq COMMAND --port 0`` in a new home until the block ends, or in ``home``, which
    stays.

    Yields when it listens; for ``up`` that is when the model is loaded. ``prepare`` is called
    with the home before anything starts.
    """
    with tempfile.TemporaryDirectory(prefix="sdq-bench-") as folder:
        home = home or Path(folder)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SDQ_")}
        environ["SDQ_HOME"] = str(home)
        (home / "server" / "address").unlink(missing_ok=True)  # of an earlier run
        if prepare:
            prepare(home)
        log = home / "bench.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "sdq", command, "--port", "0"], env=environ, stderr=sink
            )
        try:
            yield Stack(_wait(process, home, log, command), home, process, environ)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], home: Path, log: Path, command: str) -> str:
    address = home / "server" / "address"
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        ready = command != "up" or b"sdq is ready" in log.read_bytes()
        if address.exists() and ready:
            return address.read_text().strip()
        time.sleep(0.05)
    raise SystemExit(f"sdq {command} did not start:\n{log.read_text()}")


def machine() -> str:
    """The machine in one line, for the head of every figure."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores, CPython {platform.python_version()}, no GPU used"


def spread(values: Sequence[float], unit: str = "ms", scale: float = 1e3) -> str:
    """Median with minimum and maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * scale:.2f} {unit} (min {low * scale:.2f}, max {high * scale:.2f})"


def process_seconds(argv: Sequence[str], environ: dict[str, str]) -> float:
    """Wall time of one whole process."""
    begin = time.perf_counter()
    subprocess.run(argv, env=environ, check=True, capture_output=True)
    return time.perf_counter() - begin


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process, as Linux counts it (MB of 10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("no VmRSS: this benchmark needs Linux")
