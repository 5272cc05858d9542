"""Fetching a model: beside curl, and after kill -9.

A file as large as SD 1.5 in halves is served on this machine. (a) curl fetches it, (b) sdq fetches
and hashes it, in turn, ``--rounds`` times. Then `sdq worker install` fetches it and is killed
three times on the way; the server counts the bytes that it sent in all.

    python bench/download.py [--megabytes 2000] [--rounds 3] [--model FOLDER]

``--model``: a folder of `bench/full_size.py` with a whole model; it is installed and draws in the
end. Without, the file is made of random bytes and the install ends with the proof picture's error.
"""

import argparse
import hashlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from measure import machine, spread

from sdq.protocol.model import ModelFile
from sdq.worker.fetch.mirrors import fetch_file

CHUNK_BYTES = 4 * 1024 * 1024
KILLS = 3


class Folder:
    """Serves the files below a folder as a static web server does: ranges, ETag, sendfile.

    Not `sdq.testing.file_server`, which holds its files in memory and writes them chunk by chunk
    from Python: beside curl that would measure the server, and its threads would take the time
    from sdq's, in whose process it runs. With sendfile the kernel moves the bytes.
    """

    def __init__(self, root: Path, bytes_per_second: float = 0.0) -> None:
        self.sent_bytes = 0
        self.bytes_per_second = bytes_per_second
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = root / self.path.lstrip("/")
                with path.open("rb") as reader:
                    size = os.fstat(reader.fileno()).st_size
                    found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                    start = int(found[1]) if found else 0
                    self.send_response(206 if found else 200)
                    if found:
                        self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                    self.send_header("Content-Length", str(size - start))
                    self.send_header("ETag", f'"{size}"')
                    self.end_headers()
                    self.wfile.flush()
                    while start < size:
                        count = os.sendfile(
                            self.connection.fileno(), reader.fileno(), start, CHUNK_BYTES
                        )
                        start += count
                        with lock:
                            outer.sent_bytes += count
                        if outer.bytes_per_second:
                            time.sleep(count / outer.bytes_per_second)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, address: object) -> None:
                """A client that was killed is what this is about."""

        self._httpd = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()


def make_file(path: Path, megabytes: int) -> str:
    """Random bytes; their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as writer:
        for _ in range(megabytes):
            chunk = os.urandom(1_000_000)
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def beside_curl(web: Folder, name: str, sha256: str, size: int, scratch: Path, rounds: int) -> None:
    found: dict[str, list[float]] = {"curl": [], "sdq": []}
    url = f"{web.url}/{name}"
    file = ModelFile("sdq.safetensors", size, sha256, (url,))
    for _ in range(rounds):
        target = scratch / "curl.safetensors"
        begin = time.perf_counter()
        subprocess.run(["curl", "-s", "-o", str(target), url], check=True)
        found["curl"].append(size / (time.perf_counter() - begin) / 1e6)
        target.unlink()
        target = scratch / "sdq.safetensors"
        begin = time.perf_counter()
        fetch_file(file, target, lambda done: None)
        found["sdq"].append(size / (time.perf_counter() - begin) / 1e6)
        target.unlink()
    print(f"{size / 1e6:.0f} MB from this machine, {rounds} rounds in turn:")
    for who, rates in found.items():
        print(f"  {who + ':':6}{spread(rates, 'MB/s', 1)}")
    ratio = statistics.median(found["sdq"]) / statistics.median(found["curl"])
    print(f"  sdq/curl {ratio:.2f}, sdq with SHA-256 and flushed to the disk (asked: 0.8 or more)")


def killed(web: Folder, address: str, home: Path, model: str, size: int) -> None:
    """`sdq worker install`, killed three times at about a quarter, a half and three quarters."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SDQ_")}
    environ |= {"SDQ_HOME": str(home), "SDQ_SERVER": address}
    command = [sys.executable, "-m", "sdq", "worker", "install", "--model", model, "--json"]
    web.sent_bytes = 0
    for number in range(1, KILLS + 1):
        process = subprocess.Popen(
            command, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while web.sent_bytes < size * number / (KILLS + 1) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"  killed after {web.sent_bytes / 1e6:.0f} MB were sent")
    last = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    print(f"  the fourth: exit code {last.returncode}; {last.stdout.strip().splitlines()[-1:]}")
    if last.returncode:
        print(f"  {last.stderr.strip()}")
    print(
        f"  sent in all {web.sent_bytes / 1e6:.0f} MB of {size / 1e6:.0f} MB: "
        f"{web.sent_bytes / size:.4f} (asked: 1.02 or less)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a folder that bench/full_size.py has built")
    options = parser.parse_args()
    print(f"machine: {machine()}")
    with tempfile.TemporaryDirectory(prefix="sdq-download-") as folder:
        scratch = Path(folder)
        served = scratch / "served"
        served.mkdir()
        name = "model.safetensors"
        sha256 = make_file(served / name, options.megabytes)
        with Folder(served) as web:
            beside_curl(web, name, sha256, options.megabytes * 1_000_000, scratch, options.rounds)
        if options.model:
            install(options.model, scratch)


def install(folder: Path, scratch: Path) -> None:
    """A whole model from a catalog, through a server of its own."""
    from measure import running

    from sdq.testing import full_size

    files = full_size.files_of(folder)
    size = sum((folder / file).stat().st_size for file in files)
    with Folder(folder) as web:
        # So slow that there is time to kill it in the middle.
        web.bytes_per_second = 200e6
        text = full_size.catalog_text("big", "sd1", folder, files, link=web.url, side=256, steps=2)

        def prepare(home: Path) -> None:
            (home / "server").mkdir(parents=True)
            (home / "server" / "catalog.toml").write_text(text)

        with running("server", prepare) as stack:
            print(f"sdq worker install of {size / 1e6:.0f} MB in {len(files)} files:")
            killed(web, stack.address, scratch / "worker-home", "big", size)
            draw(stack.address, scratch / "worker-home")


def draw(address: str, home: Path) -> None:
    environ = os.environ | {"SDQ_HOME": str(home), "SDQ_SERVER": address}
    worker = subprocess.Popen(
        [sys.executable, "-m", "sdq", "worker", "run"], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sdq", "generate", "a cat", "--model", "big", "-o", "out.png"],
            env=environ,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        print(
            f"  sdq generate: exit code {done.returncode}; {done.stderr.strip().splitlines()[-1:]}"
        )
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
