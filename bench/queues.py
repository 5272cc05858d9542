"""The queue at 1,000, 10,000 and 100,000 waiting jobs, and how long it takes after each kill.

Real `sdq server`, Redis and worker processes; only the drawing is not real (a step takes no time
for the depths, 0.2 s for the kills). Not ``queue.py``: that would hide Python's own module.

    python bench/queues.py [--depths 1000,10000,100000] [--seconds 8] [--no-kills]
"""

import argparse
import asyncio
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from measure import machine

from sdq.client import connect
from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.queue.job import NewJob
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.turns import Turns
from sdq.spec import SpecDraft, derived_seed, key_of
from sdq.stack.redis import RedisServer, free_port
from sdq.stack.tether import tethered

PEOPLE = 20
FILL_BATCH = 1_000
SUBMIT_COUNT = 50
SUBMITS = 20
SINGLES = 100
PASSES = 200
WINDOW = 3  # jobs in one dispatch pass of the table: a worker's two and one more
STEP_SECONDS = 0.2
LIMIT_SECONDS = 90.0


def draft(subject: str) -> SpecDraft:
    return SpecDraft(subject, width=64, height=64, num_inference_steps=1)


async def fill(path: Path, jobs: int, people: int = PEOPLE) -> None:
    """Queued jobs of so many people, before the server starts."""
    catalog = Catalog.load()
    base = catalog.resolve(draft("queued"))
    fingerprint = catalog.manifest(base.model).fingerprint
    database = await Database.open(path)
    table = JobTable(database)
    for start in range(0, jobs, FILL_BATCH):
        batch = []
        for number in range(start, min(jobs, start + FILL_BATCH)):
            spec = msgspec.structs.replace(base, seed=derived_seed(base, number))
            identity = f"10.0.0.{number % people}"
            batch.append(NewJob(key_of(spec, fingerprint), spec, fingerprint, True, identity))
        await table.add(batch)
    await database.close()


@dataclass
class Stack:
    """Processes in one folder; each may be killed and started again."""

    folder: Path
    redis: RedisServer
    port: int
    processes: dict[str, "subprocess.Popen[bytes]"]
    step_seconds: float = 0.0

    @property
    def database(self) -> Path:
        return self.folder / "server" / "sdq.sqlite3"

    @property
    def drawn_log(self) -> Path:
        return self.folder / "drawn.log"

    def drawn(self) -> int:
        return self.drawn_log.read_bytes().count(b"\n") if self.drawn_log.exists() else 0

    def server(self) -> float:
        """Starts it; when, in seconds since 1970."""
        argv = ["-m", "sdq", "server", "--port", str(self.port), "--redis", self.redis.url]
        return self._start("server", [*argv, "--data-dir", str(self.folder / "server")])

    def worker(self, name: str) -> float:
        fingerprint = Catalog.load().manifest(None).fingerprint
        argv = ["-m", "sdq.testing.worker", str(self.folder / name), "--redis", self.redis.url]
        argv += ["--worker-id", name, "--fingerprint", fingerprint]
        argv += ["--drawn-log", str(self.drawn_log), "--seconds-per-step", str(self.step_seconds)]
        return self._start(name, argv)

    def _start(self, name: str, argv: list[str]) -> float:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SDQ_")}
        environ["SDQ_HOME"] = str(self.folder / "home")
        environ["SDQ_SERVER_MAX_QUEUED_JOBS"] = "1000000"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                tethered([sys.executable, *argv]), env=environ, stdout=log, stderr=log
            )
        return time.time()

    def kill(self, name: str) -> float:
        """When it was dead, in seconds since 1970."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        return time.time()

    def end(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, sql: str, *values: object) -> object:
        """The one value of a query on the server's database, as it is now."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as file:
            return file.execute(sql, values).fetchone()[0]

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"gave up waiting for {what}; the logs:\n{self._logs()}")
            time.sleep(0.02)

    def _logs(self) -> str:
        return "\n".join(log.read_text()[-2_000:] for log in self.folder.glob("*.log"))


@contextmanager
def stack(jobs: int, *, people: int = PEOPLE, step_seconds: float = 0.0) -> Iterator[Stack]:
    """Redis runs; the table holds so many jobs; server and workers are for the caller to start."""
    with tempfile.TemporaryDirectory(prefix="sdq-bench-") as name:
        folder = Path(name)
        with RedisServer(folder / "redis") as redis:
            parts = Stack(folder, redis, free_port(), {}, step_seconds)
            asyncio.run(fill(parts.database, jobs, people))
            try:
                yield parts
            finally:
                parts.end()


# ---------------------------------------------------------------- depths


async def dispatch_milliseconds(path: Path) -> float:
    """One pass of the table's own dispatch, on a copy of the database."""
    database = await Database.open(path)
    turns, model = Turns(database), Catalog.load().manifest(None).model_id
    times = []
    for _ in range(PASSES):
        begin = time.perf_counter()
        await turns.dispatch_next(model, WINDOW)
        times.append(time.perf_counter() - begin)
    await database.close()
    return statistics.median(times) * 1e3


async def submit_rates(port: int) -> tuple[float, float]:
    """Jobs a second: in requests of many pictures, and of one; one after the other."""
    async with connect(f"127.0.0.1:{port}") as client:
        begin = time.perf_counter()
        for number in range(SUBMITS):
            await client.submit(draft(f"many {number}"), count=SUBMIT_COUNT)
        middle = time.perf_counter()
        for number in range(SINGLES):
            await client.submit(draft(f"single {number}"))
        end = time.perf_counter()
    return SUBMITS * SUBMIT_COUNT / (middle - begin), SINGLES / (end - middle)


def listens(port: int) -> Callable[[], bool]:
    async def answers() -> bool:
        try:
            await (await connect(f"127.0.0.1:{port}")).close()
        except Exception:  # noqa: BLE001 - not yet, whatever the reason
            return False
        return True

    return lambda: asyncio.run(answers())


def depth(jobs: int, seconds: float) -> list[float]:
    """One column of the table."""
    with stack(jobs) as parts:
        copy = parts.folder / "copy" / "sdq.sqlite3"
        copy.parent.mkdir()
        shutil.copy(parts.database, copy)
        table = asyncio.run(dispatch_milliseconds(copy))
        parts.server()
        parts.until(listens(parts.port), "the server")
        many, singles = asyncio.run(submit_rates(parts.port))
        parts.kill("server")
        parts.worker("worker-1")
        heartbeat = "ZCARD sdq.workers"
        parts.until(lambda: parts.redis.call(*heartbeat.split()) == ":1", "the worker")
        began = parts.server()
        parts.until(parts.drawn, "the first picture")
        first = "SELECT min(dispatched_at) FROM jobs WHERE dispatched_at > ?"
        start = float(str(parts.ask(first, began))) - began
        time.sleep(2)
        before, at = parts.drawn(), time.monotonic()
        time.sleep(seconds)
        drawn = (parts.drawn() - before) / (time.monotonic() - at)
        return [many, singles, table, drawn, start]


def depths(chosen: list[int], seconds: float) -> None:
    columns = [depth(jobs, seconds) for jobs in chosen]
    rows = (
        f"submit, {SUBMIT_COUNT} a request (jobs/s)",
        "submit, 1 a request (jobs/s)",
        f"dispatch {WINDOW} jobs, table only (ms)",
        "drawn by a worker of 0 s (jobs/s)",
        "server start to dispatch (s)",
    )
    print(f"{'waiting jobs':36}" + "".join(f"{jobs:>10,}" for jobs in chosen) + "   last/first")
    for name, values in zip(rows, zip(*columns, strict=True), strict=True):
        figures = "".join(f"{value:10.2f}" for value in values)
        print(f"{name:36}{figures}{values[-1] / values[0]:13.2f}")


# ---------------------------------------------------------------- a newcomer, and kills


async def one_picture(port: int) -> float:
    async with connect(f"127.0.0.1:{port}") as client:
        begin = time.perf_counter()
        await client.generate(draft("a newcomer's"))
        return time.perf_counter() - begin


def newcomer() -> None:
    with stack(500, people=1, step_seconds=STEP_SECONDS) as parts:
        parts.worker("worker-1")
        parts.server()
        parts.until(parts.drawn, "the first picture")
        seconds = asyncio.run(one_picture(parts.port))
    print(
        f"a newcomer's picture behind another's 500: {seconds:.2f} s "
        f"(a picture takes {STEP_SECONDS} s, {500 * STEP_SECONDS:.0f} s for all)"
    )


def kills() -> None:
    with stack(1_000, step_seconds=STEP_SECONDS) as parts:
        parts.worker("worker-1")
        parts.worker("worker-2")
        parts.server()
        parts.until(lambda: parts.drawn() > 10, "pictures")
        print("seconds from kill -9 to all pictures that a worker was drawing, by the other one;")
        print("of server and Redis to the first picture of a job that was given out since:")
        print(f"  a worker:                                {_hand_over(parts):6.2f}")
        parts.worker("worker-2")
        time.sleep(5)
        killed = parts.kill("server")
        parts.server()
        print(f"  the server, started again at once:       {_next(parts, killed):6.2f}")
        print(f"  Redis, its file kept:                    {_redis(parts, is_empty=False):6.2f}")
        print(f"  Redis, started empty:                    {_redis(parts, is_empty=True):6.2f}")


def _hand_over(parts: Stack) -> float:
    """Until all that the killed worker was drawing is in the library."""
    running = "SELECT count(*) FROM jobs WHERE state = 'running' AND worker_id = 'worker-2'"
    parts.until(lambda: parts.ask(running), "a job of worker-2")
    killed = parts.kill("worker-2")
    time.sleep(0.5)  # what it said at the last moment is read
    ids = "SELECT coalesce(json_group_array(job_id), '[]') FROM jobs WHERE state = 'running'"
    held = parts.ask(f"{ids} AND worker_id = 'worker-2'")
    missing = (
        "SELECT count(*) FROM jobs WHERE state <> 'succeeded'"
        " AND job_id IN (SELECT value FROM json_each(?))"
    )
    parts.until(lambda: parts.ask(missing, held) == 0, "the killed worker's jobs")
    return time.time() - killed


def _next(parts: Stack, killed: float) -> float:
    """Until a picture comes of a job that was given to a worker since then."""
    first = (
        "SELECT coalesce(min(changed_at), 0) FROM jobs"
        " WHERE state = 'succeeded' AND dispatched_at > ?"
    )
    parts.until(lambda: parts.ask(first, killed), "the next picture")
    return float(str(parts.ask(first, killed))) - killed


def _redis(parts: Stack, *, is_empty: bool) -> float:
    pid = parts.redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    killed = time.time()
    parts.redis.stop()
    if is_empty:
        shutil.rmtree(parts.redis.directory / "appendonlydir", ignore_errors=True)
    parts.redis.start()
    seconds = _next(parts, killed)
    time.sleep(5)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", default="1000,10000,100000")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--no-kills", action="store_true")
    options = parser.parse_args()
    print(f"machine: {machine()}")
    depths([int(depth) for depth in options.depths.split(",")], options.seconds)
    newcomer()
    if not options.no_kills:
        kills()


if __name__ == "__main__":
    main()
