"""An open-loop load: pictures arrive when the schedule says so, whether or not others are done.

A latency counts from the moment that the schedule names, not from the moment that the request
was sent, so a client or a server that stalls cannot hide it.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")

GIVE_UP_SECONDS = 240.0
"""A picture that takes longer has failed."""


@dataclass(frozen=True)
class Arrival:
    """A picture that somebody wants, ``at_seconds`` after the beginning of the run."""

    at_seconds: float
    prompt: str
    steps: int
    seed: int


Ask = Callable[[Arrival], Awaitable[bytes]]
"""Brings the picture's bytes to the client, or raises."""


@dataclass(frozen=True)
class Asked:
    """How it went; ``latency_seconds`` is infinite where no picture came."""

    at_seconds: float
    steps: int
    latency_seconds: float
    fault: str = ""


def arrivals(times: Sequence[float], steps: Sequence[int], seed: int) -> list[Arrival]:
    """One for each time; each number of steps equally often, in an order drawn by ``seed``.

    Every prompt and every seed is another one, so that no answer comes from a library or a cache.
    """
    mixed = [steps[number % len(steps)] for number in range(len(times))]
    random.Random(seed).shuffle(mixed)
    return [
        Arrival(
            at,
            f"a {COLOURS[n % 4]} {SHAPES[n % 3]} on a white background, number {seed + n}",
            mixed[n],
            seed + n,
        )
        for n, at in enumerate(times)
    ]


def poisson(count: int, per_second: float, seed: int) -> list[float]:
    """``count`` times of a Poisson process, on the condition that so many fall into the span in
    which so many are expected: uniform and sorted. So each run offers exactly its rate."""
    dice = random.Random(seed)
    span_seconds = count / per_second
    return sorted(dice.uniform(0, span_seconds) for _ in range(count))


async def offer(load: Sequence[Arrival], ask: Ask) -> list[Asked]:
    """Asks for each at its time and waits for all of them."""
    begin = time.perf_counter() + 0.05

    async def one(arrival: Arrival) -> Asked:
        due = begin + arrival.at_seconds
        await asyncio.sleep(due - time.perf_counter())
        fault, latency = "", math.inf
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await ask(arrival)
            latency = time.perf_counter() - due
        except Exception as error:  # noqa: BLE001 - a failed picture is a result of the run
            fault = f"{type(error).__name__}: {error}"[:200]
        return Asked(arrival.at_seconds, arrival.steps, latency, fault)

    return list(await asyncio.gather(*(one(arrival) for arrival in load)))


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank: the smallest value that ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
