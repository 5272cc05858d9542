"""What came of `bench/serving.py`: the head and the table, from the document that it writes."""

import io
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy
from PIL import Image

from peers.load import percentile

NAMES = {
    "sdq": "sdq",
    "litserve": "LitServe",
    "ray": "Ray Serve",
    "ray-by-steps": "Ray Serve, a queue for each step count",
}


def latencies(run: dict[str, Any]) -> list[float]:
    """Infinite where no picture came."""
    return [math.inf if seconds is None else seconds for seconds in run["latency_seconds"]]


def row(runs: Sequence[dict[str, Any]], deadline_seconds: float) -> list[str]:
    """Median, p95 and goodput of all rounds together; of p95 the smallest and largest round."""
    rounds = [latencies(run) for run in runs]
    pooled = [seconds for found in rounds for seconds in found]
    p95s = [percentile(found, 0.95) for found in rounds]
    in_time = sum(seconds <= deadline_seconds for seconds in pooled) / len(pooled)
    return [
        f"{percentile(pooled, 0.5):.2f} s",
        f"{percentile(pooled, 0.95):.2f} s",
        f"{min(p95s):.2f}–{max(p95s):.2f}",
        f"{in_time:.0%}",
        f"{in_time * runs[0]['offered_per_second']:.2f}/s",
    ]


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| load | system | median | p95 | p95 of the rounds | in time | goodput |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in document["loads"]:
        for name in document["systems"]:
            runs = [
                run
                for run in document["runs"]
                if run["system"] == name and run["load_percent"] == load
            ]
            offered = f"{load} % ({runs[0]['offered_per_second']:.2f}/s)"
            cells = row(runs, document["deadline_seconds"])
            lines.append("| " + " | ".join([offered, NAMES[name], *cells]) + " |")
    return "\n".join(lines)


def head(document: dict[str, Any]) -> str:
    terms = document["terms"]
    lines = [
        f"machine: {document['machine']}; torch threads {terms['threads']}, {terms['dtype']}",
        f"steps {', '.join(map(str, document['steps']))} evenly mixed; {document['arrivals']} "
        f"arrivals a run, {document['rounds']} rounds; at most {terms['batch']} pictures at once; "
        f"peers wait {terms['wait_seconds'] * 1e3:g} ms for a batch to fill",
        f"deadline {document['deadline_seconds']:.2f} s: {document['deadline']}",
    ]
    for name in document["systems"]:
        lone = document["lone_seconds"][name]
        lines.append(
            f"{NAMES[name]}: a lone picture of {document['lone_steps']} steps "
            f"{statistics.median(lone):.3f} s (min {min(lone):.3f}, max {max(lone):.3f}); "
            f"saturated {document['saturated_per_second'][name]:.2f} pictures/s; its first "
            f"picture differs from sdq's by at most {document['differs_by'][name]}/255"
        )
    return "\n".join(lines)


def difference(one: bytes, other: bytes) -> int:
    """Largest difference of two pictures in any pixel."""
    first, second = (
        numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int) for data in (one, other)
    )
    return int(abs(first - second).max())
