"""What outlives a fetch: `kill -9`, and a server that asks to be left alone for a while."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import sdq
from sdq.protocol.model import ModelFile
from sdq.testing.file_server import Fault, FileServer
from sdq.worker.fetch.mirrors import fetch_file

PATIENCE_SECONDS = 30.0
CODE = """
import sys, msgspec
from pathlib import Path
from sdq.protocol.model import ModelFile
from sdq.worker.fetch.mirrors import fetch_file
fetch_file(msgspec.json.decode(sys.argv[1], type=ModelFile), Path(sys.argv[2]), lambda done: None)
"""


def test_after_kill_9_a_fetch_goes_on_where_it_was(
    web: FileServer, file_of: Callable[..., ModelFile], tmp_path: Path, body: bytes
) -> None:
    file, target = file_of("/one"), tmp_path / "model.safetensors"
    part = Path(f"{target}.part")
    web.bytes_per_second = 400_000
    fetching = subprocess.Popen(
        [sys.executable, "-c", CODE, msgspec.json.encode(file).decode(), str(target)],
        cwd=Path(sdq.__file__).parents[1],
    )
    end = time.monotonic() + PATIENCE_SECONDS
    while not part.exists() or part.stat().st_size < 200_000:
        assert time.monotonic() < end
        assert fetching.poll() is None
        time.sleep(0.01)
    fetching.send_signal(signal.SIGKILL)
    fetching.wait()
    assert not target.exists()
    kept_bytes = part.stat().st_size
    web.bytes_per_second = 0.0
    told: list[int] = []
    fetch_file(file, target, told.append)
    assert target.read_bytes() == body
    assert told[0] == kept_bytes
    assert web.requests[-1].headers["range"] == f"bytes={kept_bytes}-"
    assert web.requests[-1].sent_bytes == len(body) - kept_bytes


class Patient(threading.Event):
    """Remembers how long somebody wanted to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


def test_a_busy_server_is_left_alone_as_long_as_it_asks_but_not_for_ever(
    web: FileServer, file_of: Callable[..., ModelFile], tmp_path: Path, body: bytes
) -> None:
    web.faults["/one"] = [
        Fault(status=503, retry_after="7"),
        Fault(status=503, retry_after="86400"),
    ]
    halt, target = Patient(), tmp_path / "model.safetensors"
    fetch_file(file_of("/one"), target, lambda done: None, halt=halt)
    assert halt.waits == [7.0, 60.0]
    assert target.read_bytes() == body
