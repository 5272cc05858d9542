"""Every program of docs/python.md, against a real server with Redis and a worker without torch."""

import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import sdq
from sdq import config
from sdq.client import connect_blocking
from sdq.client.loop_thread import LoopThread
from sdq.server.catalog import Catalog
from sdq.server.server import Server
from sdq.stack.redis import RedisServer

ROOT = Path(sdq.__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "python.md").read_text()
BLOCKS = [
    (title, block)
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S)
    for block in re.findall(r"```python\n(.*?)```", text, re.S)
]
FILES = {
    "One picture": ["circle.png"],
    "Without asyncio, and in a notebook": ["square.webp"],
    "Parameters": ["steps/05.png", "steps/10.png", "steps/20.png"],
    "Many pictures": [f"circles/{number}.png" for number in range(9)],
    "News while it is drawn": ["star-0.png", "star-1.png"],
    "Errors, and leaving early": ["first.png"],
    "Hand in now, fetch later": ["sky-0.png", "sky-1.png"],
    "The library": [],  # named by keys
}
SAID = {
    "One picture": r"made 3 \(128, 128\)\n",
    "Without asyncio, and in a notebook": r"(\d [0-9a-f]{8}\n){3}",
    "News while it is drawn": r"(picture [01]: \w+, step \d+ of \d+\n)+",
    "Errors, and leaving early": r"not drawn yet\nwidth 100 is not .* - try 96 or 104\n",
    "The library": r"[0-9a-f]{8} a red circle with a shadow\n\d+ pictures, 1 workers online\n",
}
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that draws."""
    folder = tmp_path_factory.mktemp("documented")
    settings = config.load({"SDQ_HOME": str(folder / "home")})
    settings = replace(settings, server=replace(settings.server, port=0))
    fingerprint = Catalog.load().manifest("shapes").fingerprint
    thread = LoopThread()
    with RedisServer(folder / "redis") as redis:
        worker = [sys.executable, "-m", "sdq.testing.worker", str(folder), "--redis", redis.url]
        worker += ["--fingerprint", fingerprint, "--at-once", "4", "--seconds-per-step", "0.002"]
        server = thread.call(lambda: Server.start(settings, redis_url=redis.url))
        with subprocess.Popen(worker, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            try:
                address = f"127.0.0.1:{server.port}"
                _wait_for_worker(address, process)
                yield address
            finally:
                process.terminate()
                thread.call(server.close)
                thread.close()


def _wait_for_worker(address: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    with connect_blocking(address) as client:
        while not any(worker.state == "ready" for worker in client.status().workers):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)


def test_no_program_is_left_out() -> None:
    assert [title for title, _ in BLOCKS] == list(FILES)


@pytest.mark.parametrize(("title", "block"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_the_program_does_what_is_said(
    title: str,
    block: str,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SDQ_SERVER", address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(block)
    runpy.run_path("program.py", run_name="__main__")
    assert re.fullmatch(SAID.get(title, ""), capsys.readouterr().out)
    for name in FILES[title]:
        with Image.open(tmp_path / name) as image:
            image.load()
    if title == "The library":
        assert list((tmp_path / "found").iterdir())
