"""The systems under load: each started alone, asked for pictures, and stopped."""

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from measure import START_SECONDS, running

from peers.load import GIVE_UP_SECONDS, Arrival, Ask
from sdq.client import connect
from sdq.spec import SpecDraft

HERE = Path(__file__).parent
SDQ_CONNECTIONS = 4
STOP_SECONDS = 30.0

UNMEASURED_BATCH = 8
UNMEASURED_DTYPE = "float32"


@dataclass(frozen=True)
class Terms:
    """What is the same for all: the batch limit, the numbers, the cores."""

    batch: int
    dtype: str
    threads: int
    wait_seconds: float  # of the peers, for a batch to fill


@asynccontextmanager
async def sdq(home: Path) -> AsyncIterator[Ask]:
    """``sdq up`` in ``home``, which stays: what its installation measured counts the next time."""
    with running("up", home=home) as stack:
        clients = [await connect(stack.address) for _ in range(SDQ_CONNECTIONS)]
        turns = cycle(clients)

        async def ask(arrival: Arrival) -> bytes:
            draft = SpecDraft(
                arrival.prompt,
                num_inference_steps=arrival.steps,
                guidance_scale=4.0,
                width=128,
                height=128,
                scheduler="ddim",
                seed=arrival.seed,
            )
            return (await next(turns).generate(draft)).png

        try:
            yield ask
        finally:
            for client in clients:
                await client.close()


def measured(home: Path) -> tuple[int, str]:
    """The active set and the dtype that sdq's installation in ``home`` found to be best."""
    document = json.loads((home / "worker" / "worker.json").read_text())
    profile = document["models"][0].get("profile") or {}
    return profile.get("at_once", UNMEASURED_BATCH), profile.get("dtype", UNMEASURED_DTYPE)


@asynccontextmanager
async def peer(script: str, terms: Terms, packages: Path, *flags: str) -> AsyncIterator[Ask]:
    """A server of ours around a framework, which draws what is posted to ``/draw``."""
    aiohttp: Any = importlib.import_module("aiohttp")
    port = _free_port()
    with _served(script, port, terms, packages, flags) as alive:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=GIVE_UP_SECONDS),
        ) as session:

            async def ask(arrival: Arrival) -> bytes:
                wanted = {"prompt": arrival.prompt, "steps": arrival.steps, "seed": arrival.seed}
                async with session.post(f"http://127.0.0.1:{port}/draw", json=wanted) as reply:
                    body: bytes = await reply.read()
                    if reply.status != 200:
                        raise RuntimeError(f"{reply.status}: {body[:100]!r}")
                    return body

            until = time.monotonic() + START_SECONDS
            while True:
                alive(time.monotonic() < until)
                try:
                    await ask(Arrival(0, "a red circle", 2, 1))
                    break
                except (OSError, RuntimeError, aiohttp.ClientError):
                    await asyncio.sleep(0.1)
            yield ask


@contextmanager
def _served(
    script: str, port: int, terms: Terms, packages: Path, flags: tuple[str, ...]
) -> Iterator[Callable[[bool], None]]:
    """Runs the script; what it yields raises when it has ended, or when told that time is up."""
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(packages), str(HERE)]),
        "GOMP_SPINCOUNT": "1000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own switch to stay on 127.0.0.1
    }
    argv = [sys.executable, str(HERE / script), "--port", str(port), *flags]
    argv += ["--batch", str(terms.batch), "--wait-seconds", str(terms.wait_seconds)]
    argv += ["--dtype", terms.dtype, "--threads", str(terms.threads)]
    with tempfile.TemporaryDirectory(prefix="sdq-bench-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                argv, env=environ, stdout=sink, stderr=sink, start_new_session=True, cwd=folder
            )

        def alive(in_time: bool) -> None:
            if process.poll() is not None or not in_time:
                raise SystemExit(f"{script} did not start:\n{log.read_text()[-4000:]}")

        try:
            yield alive
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: only what it has started
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
