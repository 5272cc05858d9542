"""What shall happen in a run: who asks for what and when, what is killed and when."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SHORTEST_STOP_SECONDS = 1.0
LONGEST_STOP_SECONDS = 12.0
"""Longer than a heartbeat may be late: a stopped worker counts as gone and comes back."""


class Target(StrEnum):
    WORKER = "worker"
    SERVER = "server"
    REDIS = "redis"


class Blow(StrEnum):
    KILLED = "killed"  # kill -9, started again after `Kill.away_seconds`
    EMPTIED = "emptied"  # the same, and what Redis had stored is removed
    STOPPED = "stopped"  # SIGSTOP, SIGCONT after `Kill.away_seconds`


class Way(StrEnum):
    """How an order is given."""

    GENERATE = "generate"  # `sdq generate`
    SUBMIT = "submit"  # `sdq submit`, then `sdq attach`
    SDK = "sdk"  # `Client.generate`, in a process of its own
    SDK_SUBMIT = "sdk-submit"  # `Client.submit` in one process, `Client.attach` in another


@dataclass(frozen=True)
class Kill:
    at_seconds: float
    target: Target
    blow: Blow
    away_seconds: float
    choice: int  # which of several workers


@dataclass(frozen=True)
class Order:
    """What one person asks for at once: ``count`` pictures of each prompt."""

    person: int
    at_seconds: float  # at the earliest; the orders of a person follow each other
    way: Way
    prompts: tuple[str, ...]
    count: int
    killed_after_seconds: float | None  # the client, by `kill -9`
    again: bool  # a killed client is started again


@dataclass(frozen=True)
class Scale:
    """How large a run is. ``kills``: how many of each sort."""

    persons: int
    workers: int
    pictures: int  # different ones, at least
    least_jobs: int  # that come of them: a client may be killed before it was heard
    seconds: float  # over which orders and kills are spread
    kills: dict[tuple[Target, Blow], int]
    killed_clients: int
    settle_seconds: float  # after the last kill; what is not done by then is lost
    seconds_per_step: float  # of the pipeline double; 0 with a real model
    repeats: float = 0.35  # share of the prompts of an order that others asked for before
    most_prompts: int = 6  # of an order
    longest_stop_seconds: float = LONGEST_STOP_SECONDS
    is_real: bool = False  # the built-in model in place of the double

    @property
    def total_kills(self) -> int:
        return sum(self.kills.values())


FULL = Scale(
    persons=10,
    workers=4,
    pictures=540,
    least_jobs=500,
    seconds=110.0,
    kills={
        (Target.WORKER, Blow.KILLED): 14,
        (Target.WORKER, Blow.STOPPED): 8,
        (Target.SERVER, Blow.KILLED): 8,
        (Target.SERVER, Blow.STOPPED): 4,
        (Target.REDIS, Blow.KILLED): 4,
        (Target.REDIS, Blow.EMPTIED): 4,
        (Target.REDIS, Blow.STOPPED): 3,
    },
    killed_clients=12,
    settle_seconds=60.0,
    seconds_per_step=0.015,
)
"""``make chaos``."""

SHORT = Scale(
    persons=8,
    workers=3,
    pictures=76,
    least_jobs=60,
    seconds=18.0,
    kills={
        (Target.WORKER, Blow.KILLED): 2,
        (Target.WORKER, Blow.STOPPED): 1,
        (Target.SERVER, Blow.KILLED): 2,
        (Target.REDIS, Blow.KILLED): 1,
        (Target.REDIS, Blow.EMPTIED): 1,
    },
    killed_clients=3,
    settle_seconds=40.0,
    seconds_per_step=0.015,
    most_prompts=4,
)
"""In the test suite."""

REAL = Scale(
    persons=4,
    workers=2,
    pictures=48,
    least_jobs=30,
    seconds=28.0,
    kills={
        (Target.WORKER, Blow.KILLED): 3,
        (Target.WORKER, Blow.STOPPED): 1,
        (Target.SERVER, Blow.KILLED): 3,
    },
    killed_clients=2,
    settle_seconds=60.0,
    seconds_per_step=0.0,
    most_prompts=3,
    is_real=True,
)
"""``make chaos``, second part: torch and the built-in model."""

_COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple", "pink", "cyan")
_SHAPES = ("circle", "square", "triangle", "star", "ring", "heart", "cross", "diamond")


@dataclass(frozen=True)
class Plan:
    seed: int
    scale: Scale
    orders: tuple[Order, ...]  # by time
    kills: tuple[Kill, ...]  # by time

    def wishes(self) -> Iterator[tuple[str, int]]:
        """All (prompt, index of the picture) that somebody asks for; repeated ones too."""
        for order in self.orders:
            for prompt in order.prompts:
                for index in range(order.count):
                    yield prompt, index


def make_plan(seed: int, scale: Scale) -> Plan:
    """The same plan for the same seed and scale."""
    random_source = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    orders = _orders(random_source, scale)
    kills = _kills(random_source, scale)
    return Plan(seed, scale, tuple(orders), tuple(kills))


def _kills(random_source: random.Random, scale: Scale) -> list[Kill]:
    """Evenly in number, at random in time: some come in the middle of a recovery."""
    sorts = [sort for sort, count in scale.kills.items() for _ in range(count)]
    random_source.shuffle(sorts)
    times = sorted(random_source.uniform(1.0, scale.seconds) for _ in sorts)
    kills = []
    for at_seconds, (target, blow) in zip(times, sorts, strict=True):
        away_seconds = random_source.uniform(0.1, 2.0)
        if blow is Blow.STOPPED:
            away_seconds = random_source.uniform(SHORTEST_STOP_SECONDS, scale.longest_stop_seconds)
        elif target is Target.WORKER and random_source.random() < 0.25:
            away_seconds = random_source.uniform(8.0, 12.0)  # another one must take over
        kills.append(Kill(at_seconds, target, blow, away_seconds, random_source.randrange(1_000)))
    return kills


def _orders(random_source: random.Random, scale: Scale) -> list[Order]:
    asked: list[tuple[tuple[str, ...], int]] = []
    known: dict[int, list[str]] = {1: [], 2: [], 3: []}  # by how many pictures of it are asked for
    pictures = 0
    while pictures < scale.pictures:
        count = random_source.choice((1, 1, 2, 3))
        prompts: list[str] = []
        for _ in range(random_source.randint(2, scale.most_prompts)):
            again = known[count][-20:]  # the last ones are perhaps still on their way
            if again and random_source.random() < scale.repeats:
                prompts.append(random_source.choice(again))
                continue
            prompts.append(_prompt(random_source, pictures))
            known[count].append(prompts[-1])
            pictures += count
        asked.append((tuple(dict.fromkeys(prompts)), count))
    killed = set(random_source.sample(range(len(asked)), min(scale.killed_clients, len(asked))))
    times = sorted(random_source.uniform(0.0, scale.seconds * 0.9) for _ in asked)
    return [
        Order(
            person=number % scale.persons,
            at_seconds=at_seconds,
            way=random_source.choice(tuple(Way)),
            prompts=prompts,
            count=count,
            killed_after_seconds=random_source.uniform(0.4, 3.0) if number in killed else None,
            again=random_source.random() < 0.5,
        )
        for number, (at_seconds, (prompts, count)) in enumerate(zip(times, asked, strict=True))
    ]


def _prompt(random_source: random.Random, number: int) -> str:
    """Unlike any other; in words that the built-in model knows, mostly."""
    shape, colour = random_source.choice(_SHAPES), random_source.choice(_COLOURS)
    return f"a {colour} {shape} on a {random_source.choice(_COLOURS)} background, number {number}"
