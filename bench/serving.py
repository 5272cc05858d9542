"""Latency and goodput under Poisson arrivals: sdq beside LitServe and Ray Serve, client to client.

The same pictures (built-in model, 128 × 128, guidance 4, DDIM, step counts mixed evenly) arrive by
the same schedules at sdq (`sdq up`: server, Redis, Celery, engine), at LitServe with its dynamic
batching, and at Ray Serve with ``@serve.batch``; one system alone at a time, started anew in each
round, in alternating order. Loads are shares of sdq's saturated rate: of what it draws in a second
while more waits, four active sets handed in at once, the first and the last of them not counted.
Each system's own such rate is told too; both are of the first round.

A latency is from the moment that the schedule names to the last byte of the PNG at the client.
Goodput: pictures a second that were there within the deadline, which is five times what a lone
picture of 20 steps takes sdq. The number of arrivals in a run is fixed: where a system cannot keep
up its line grows until the arrivals end, and its latencies with it; a longer run shows larger ones.

What was chosen for the peers (`peers/`), and why:

- The same pipeline in the same memory layout, dtype and number of threads, which sdq's worker uses,
  with the same limit of a batch as sdq's active set. The first picture of all is compared.
- One copy of the model: a second one would share the same cores.
- A call of the pipeline has one number of steps, so a collected batch is drawn in groups of equal
  steps, and all of it is answered when the last group is done: so batches are answered there.
- They wait at most ``--wait-ms`` for a batch to fill, 10 ms as is Ray Serve's default. A backlog
  fills batches without it, and more only delays the first. LitServe's default, 0, keeps a core busy
  while there is nothing to do.
- Ray Serve draws on the replica's event loop: see `peers/ray_server.py`. ``ray-by-steps`` has a
  queue for each number of steps, which is more than its documentation proposes.
- No queue limits, no time-outs, keep-alive connections, PNG bytes as the reply.

    make bench-serving      or, with the packages of requirements.txt in a folder of their own:
    python bench/serving.py [--peers .cache/bench-peers] [--json FILE] [--quick]
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from measure import machine
from peers import systems
from peers.load import Arrival, Ask, Asked, arrivals, offer, poisson
from peers.report import NAMES, difference, head, table

System = Callable[[], AbstractAsyncContextManager[Ask]]

STEPS = (10, 14, 18, 22, 26, 30)
LONE_STEPS = 20
LONE_PICTURES = 5
DEADLINE_PICTURES = 5


class Bench:
    """All that one invocation measures. ``runs`` and ``rates`` grow with each round."""

    def __init__(self, options: argparse.Namespace, home: Path) -> None:
        self._options = options
        self._home = home
        self._terms: systems.Terms | None = None
        self.lone_seconds: dict[str, list[float]] = {}
        self.saturated: dict[str, float] = {}
        self.pictures: dict[str, bytes] = {}
        self.runs: list[dict[str, Any]] = []

    @property
    def rate(self) -> float:
        """sdq's saturated one, pictures a second."""
        return float(self._options.rate or self.saturated["sdq"])

    @property
    def deadline_seconds(self) -> float:
        return DEADLINE_PICTURES * statistics.median(self.lone_seconds["sdq"])

    @property
    def terms(self) -> systems.Terms:
        """Of all systems. The first of them is sdq, whose installation measures."""
        if self._terms is None:
            options = self._options
            batch, dtype = systems.measured(self._home)
            wait_seconds = options.wait_ms / 1e3
            batch = options.batch or batch
            self._terms = systems.Terms(batch, dtype, options.threads, wait_seconds)
        return self._terms

    def _system(self, name: str) -> System:
        packages = self._options.peers.absolute()
        if name == "sdq":
            return lambda: systems.sdq(self._home)
        if name == "litserve":
            return lambda: systems.peer("lit_server.py", self.terms, packages)
        flags = ("--by-steps",) if name == "ray-by-steps" else ()
        return lambda: systems.peer("ray_server.py", self.terms, packages, *flags)

    async def run(self) -> None:
        order = list(self._options.systems)
        for number in range(self._options.rounds):
            for name in order:
                begin = time.perf_counter()
                async with self._system(name)() as ask:
                    started = time.perf_counter()
                    await self._measure(name, number, ask)
                print(
                    f"round {number + 1}, {NAMES[name]}: started in {started - begin:.0f} s, "
                    f"measured in {time.perf_counter() - started:.0f} s; "
                    f"load average {os.getloadavg()[0]:.2f}",
                    file=sys.stderr,
                )
            order.reverse()

    async def _measure(self, name: str, number: int, ask: Ask) -> None:
        base = (number + 1) * 1_000_000
        options = self._options
        self.pictures.setdefault(name, await ask(Arrival(0, "a red circle", LONE_STEPS, 7)))
        await offer(arrivals([0.0] * 2 * len(options.steps), options.steps, base), ask)  # warm
        for seed in range(base + 500, base + 500 + LONE_PICTURES):
            (lone,) = await offer(arrivals([0.0], [LONE_STEPS], seed), ask)
            self.lone_seconds.setdefault(name, []).append(lone.latency_seconds)
        if name not in self.saturated:
            self.saturated[name] = await self._saturated_rate(base + 1_000, ask)
        for load in options.loads:
            seed = base + 10_000 * load
            times = poisson(options.arrivals, self.rate * load / 100, seed)
            asked = await offer(arrivals(times, options.steps, seed), ask)
            self._keep(name, number, load, asked)

    async def _saturated_rate(self, seed: int, ask: Ask) -> float:
        """Between the end of the first batch and the moment when only a batch is left, so that
        the beginning and the end, when there is less to do than could be done, do not count."""
        batch: int = self.terms.batch
        count: int = batch * self._options.batches
        asked = await offer(arrivals([0.0] * count, self._options.steps, seed), ask)
        ends: list[float] = sorted(one.latency_seconds for one in asked)
        span_seconds = ends[count - batch - 1] - ends[batch - 1]
        return (count - 2 * batch) / span_seconds

    def _keep(self, name: str, number: int, load: int, asked: Sequence[Asked]) -> None:
        faults = [one.fault for one in asked if one.fault]
        if faults:
            print(f"{NAMES[name]} at {load} %: {len(faults)} failed: {faults[0]}", file=sys.stderr)
        self.runs.append(
            {
                "system": name,
                "round": number,
                "load_percent": load,
                "offered_per_second": self.rate * load / 100,
                "at_seconds": [round(one.at_seconds, 4) for one in asked],
                "steps": [one.steps for one in asked],
                "latency_seconds": [
                    None if one.fault else round(one.latency_seconds, 4) for one in asked
                ],
            }
        )


def document_of(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """All that was measured, for `table`, `head` and `plot_serving.py`."""
    terms = bench.terms
    return {
        "machine": machine(),
        "systems": options.systems,
        "names": {name: NAMES[name] for name in options.systems},
        "loads": options.loads,
        "steps": options.steps,
        "arrivals": options.arrivals,
        "rounds": options.rounds,
        "terms": {
            "batch": terms.batch,
            "dtype": terms.dtype,
            "threads": terms.threads,
            "wait_seconds": terms.wait_seconds,
        },
        "deadline_seconds": bench.deadline_seconds,
        "deadline": f"{DEADLINE_PICTURES} times a lone picture of {LONE_STEPS} steps through sdq",
        "lone_steps": LONE_STEPS,
        "lone_seconds": bench.lone_seconds,
        "saturated_per_second": bench.saturated,
        "differs_by": {
            name: difference(bench.pictures[name], bench.pictures["sdq"])
            for name in options.systems
        },
        "runs": bench.runs,
    }


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def asked_for() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path(".cache/bench-peers"))
    parser.add_argument("--systems", default="sdq,litserve,ray", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--loads", type=numbers, default=[50, 80, 95], help="percent")
    parser.add_argument("--steps", type=numbers, default=list(STEPS))
    parser.add_argument("--arrivals", type=int, default=30, help="in a run")
    parser.add_argument("--batches", type=int, default=4, help="all at once, for the rate")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, help="instead of sdq's saturated one")
    parser.add_argument("--batch", type=int, help="the peers' limit, instead of sdq's active set")
    parser.add_argument("--wait-ms", type=float, default=10, help="peers', for a batch to fill")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="where all latencies go, for plot_serving.py")
    parser.add_argument("--quick", action="store_true", help="does it work at all")
    options = parser.parse_args()
    options.systems = options.systems.split(",")
    if unknown := set(options.systems) - NAMES.keys():
        parser.error(f"no such system: {', '.join(unknown)}")
    if options.systems[0] != "sdq":
        parser.error("the first system is sdq: loads and deadline come from it")
    if options.batches < 3:
        parser.error("--batches: 3 or more, the first and the last do not count")
    if len(options.systems) > 1 and not options.peers.is_dir():
        parser.error(f"{options.peers} is not there: `make bench-serving` installs the peers")
    if options.quick:
        options.arrivals, options.batches, options.rounds = 12, 3, 1
    return options


def main() -> None:
    options = asked_for()
    sys.path.append(str(options.peers))  # the client's HTTP; what .venv has comes first
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory(prefix="sdq-bench-") as folder:
        bench = Bench(options, Path(folder))
        asyncio.run(bench.run())
        document = document_of(bench, options)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document) + "\n")
    print(head(document))
    print()
    print(table(document))


if __name__ == "__main__":
    main()
