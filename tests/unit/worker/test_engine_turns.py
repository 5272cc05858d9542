"""Many pictures in one turn: who joins, who leaves, whose fault is whose."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from sdq.errors import Cancelled, OutOfMemory
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.spec import ImageSpec
from sdq.testing.pipeline import held, picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker.engine import DrawnImage, Engine, GivenBack, NoPicture
from sdq.worker.flight import Capacity
from sdq.worker.inbox import Inbox

WAIT_SECONDS = 10.0
AREA = 64 * 48  # of the fixture's picture


@contextmanager
def running(
    pipeline: SteppingFake, canary: ImageSpec | None = None, **options: Any
) -> Iterator[Engine]:
    engine = Engine([held(pipeline, canary)], **options)
    engine.start()
    engine.wait_ready(WAIT_SECONDS)
    try:
        yield engine
    finally:
        pipeline.gate.set()
        assert engine.close()


class Wishes:
    """Pictures that are submitted at chosen moments; they differ in their seed."""

    def __init__(self, engine: Engine, spec: ImageSpec) -> None:
        self.engine, self.spec = engine, spec
        self.steps: dict[int, list[int]] = {}
        self.futures: dict[int, Future[DrawnImage]] = {}
        self.cancelled: set[int] = set()
        self.at: dict[tuple[int, int], Callable[[], object]] = {}

    def submit(self, seed: int, **changes: Any) -> Future[DrawnImage]:
        spec = msgspec.structs.replace(self.spec, seed=seed, **changes)
        self.steps[seed] = []

        def on_step(step: int, steps: int) -> None:
            self.steps[seed].append(step)
            self.at.get((seed, step), lambda: None)()

        self.futures[seed] = self.engine.submit(
            spec, on_step=on_step, is_cancelled=lambda: seed in self.cancelled
        )
        return self.futures[seed]


def together(pipeline: SteppingFake, *submit: Callable[[], object]) -> None:
    """All of these are there before the next turn."""
    pipeline.gate.clear()
    for act in submit:
        act()
    pipeline.gate.set()


def test_arrivals_join_at_the_next_turn_and_the_finished_leave(spec: ImageSpec) -> None:
    pipeline = SteppingFake()
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        wishes.at[1, 2] = lambda: wishes.submit(2, num_inference_steps=1)
        wishes.at[1, 3] = lambda: wishes.submit(3, prompt="a dog", guidance_scale=1.0)
        drawn = wishes.submit(1).result(WAIT_SECONDS)
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
    assert pipeline.turns == [
        [(1, 0)],
        [(1, 1)],
        [(1, 2), (2, 0)],
        [(1, 3), (3, 0)],
        [(3, 1)],
        [(3, 2)],
        [(3, 3)],
    ]
    assert wishes.steps == {1: [0, 1, 2, 3, 4], 2: [0, 1], 3: [0, 1, 2, 3, 4]}
    seeded = msgspec.structs.replace(spec, seed=1)
    assert drawn.image.tobytes() == picture_of(seeded).tobytes()


def test_sizes_take_turns_and_none_starves(spec: ImageSpec) -> None:
    pipeline = SteppingFake()
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        small = [lambda seed=seed: wishes.submit(seed) for seed in range(4)]
        together(pipeline, *small, lambda: wishes.submit(9, width=128, height=128))
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
    sizes = [{seed == 9 for seed, _ in turn} for turn in pipeline.turns]
    assert all(len(kinds) == 1 for kinds in sizes)
    ended = next(n for n, turn in enumerate(pipeline.turns) if (9, 3) in turn)
    assert ended <= 9  # four turns of its own, and one between each two, whoever came meanwhile


def test_no_more_than_the_capacity_is_in_flight(spec: ImageSpec) -> None:
    pipeline = SteppingFake(capacity=Capacity(pictures=3, area_pixels=10 * AREA))
    with running(pipeline) as engine:
        assert engine.at_once == 3
        wishes = Wishes(engine, spec)
        together(pipeline, *(lambda seed=seed: wishes.submit(seed) for seed in range(7)))
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
    assert max(map(len, pipeline.turns)) == 3
    assert sum(map(len, pipeline.turns)) == 7 * 4


def test_one_picture_alone_may_be_larger_than_the_capacity(spec: ImageSpec) -> None:
    pipeline = SteppingFake(capacity=Capacity(pictures=3, area_pixels=AREA))
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        together(
            pipeline,
            lambda: wishes.submit(1, width=256, height=256),
            lambda: wishes.submit(2),
        )
        assert wishes.futures[1].result(WAIT_SECONDS).image.size == (256, 256)
        assert wishes.futures[2].result(WAIT_SECONDS)
    assert max(map(len, pipeline.turns)) == 1


def test_what_waits_for_room_can_be_taken_back(spec: ImageSpec) -> None:
    pipeline = SteppingFake(capacity=Capacity(pictures=1, area_pixels=AREA))
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        wishes.at[1, 2] = lambda: wishes.futures[2].cancel()
        together(pipeline, *(lambda seed=seed: wishes.submit(seed) for seed in (1, 2, 3)))
        assert wishes.futures[1].result(WAIT_SECONDS)
        assert wishes.futures[3].result(WAIT_SECONDS)
        with pytest.raises(CancelledError):
            wishes.futures[2].result(0)
    assert [drawn.seed for drawn in pipeline.drawn] == [1, 3]


def test_a_cancelled_picture_leaves_its_neighbours_alone(spec: ImageSpec) -> None:
    pipeline = SteppingFake()
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        wishes.at[1, 2] = lambda: wishes.cancelled.add(2)
        together(pipeline, lambda: wishes.submit(1), lambda: wishes.submit(2))
        assert wishes.futures[1].result(WAIT_SECONDS)
        with pytest.raises(Cancelled):
            wishes.futures[2].result(WAIT_SECONDS)
    assert max(wishes.steps[2]) <= 2


@pytest.mark.parametrize(
    ("switch", "error"),
    [
        ("fail_on", RuntimeError),
        ("out_of_memory_on", OutOfMemory),
        ("nan_on", NoPicture),
        ("black_on", NoPicture),
        ("fail_turn_on", RuntimeError),
    ],
)
def test_a_failure_is_one_pictures_own(
    spec: ImageSpec, manifest: ModelManifest, switch: str, error: type[Exception]
) -> None:
    """Even one that ends every turn with this picture in it."""
    pipeline = SteppingFake(**{switch: "bad"})  # type: ignore[arg-type]
    with running(pipeline, canary=canary_spec(manifest)) as engine:
        wishes = Wishes(engine, spec)
        together(
            pipeline,
            lambda: wishes.submit(1),
            lambda: wishes.submit(2, prompt="a bad cat"),
            lambda: wishes.submit(3),
        )
        with pytest.raises(error):
            wishes.futures[2].result(WAIT_SECONDS)
        assert wishes.futures[1].result(WAIT_SECONDS)
        assert wishes.futures[3].result(WAIT_SECONDS)
        assert engine.broken == ""
    assert wishes.steps[1] == wishes.steps[3] == [0, 1, 2, 3, 4]


def test_a_listener_that_fails_ends_its_own_picture(spec: ImageSpec) -> None:
    pipeline = SteppingFake()
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)

        def act() -> None:
            raise KeyError("the listener")

        wishes.at[2, 1] = act
        together(pipeline, lambda: wishes.submit(1), lambda: wishes.submit(2))
        with pytest.raises(KeyError):
            wishes.futures[2].result(WAIT_SECONDS)
        assert wishes.futures[1].result(WAIT_SECONDS)


def test_a_full_device_halves_the_turn_and_the_limit_is_remembered(
    spec: ImageSpec, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = SteppingFake(fits_pixels=2 * AREA)
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        together(pipeline, *(lambda seed=seed: wishes.submit(seed) for seed in range(8)))
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
        failed = len([record for record in caplog.records if "not enough memory" in record.message])
        assert 1 <= failed <= 2
        together(pipeline, *(lambda seed=seed: wishes.submit(seed) for seed in range(10, 18)))
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
        assert (
            len([record for record in caplog.records if "not enough memory" in record.message])
            == failed
        )
    assert max(map(len, pipeline.turns)) == 2
    for seed, steps in wishes.steps.items():
        assert steps == [0, 1, 2, 3, 4], seed


def test_a_picture_too_large_for_the_device_even_alone(spec: ImageSpec) -> None:
    pipeline = SteppingFake(fits_pixels=AREA)
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        with pytest.raises(OutOfMemory, match="256x256"):
            wishes.submit(1, width=256, height=256).result(WAIT_SECONDS)
        assert wishes.submit(2).result(WAIT_SECONDS)


def test_a_broken_engine_gives_back_all_that_was_in_flight(
    spec: ImageSpec, manifest: ModelManifest
) -> None:
    pipeline = SteppingFake(break_after=1)
    with running(pipeline, canary=canary_spec(manifest)) as engine:
        wishes = Wishes(engine, spec)
        together(
            pipeline,
            lambda: wishes.submit(1, num_inference_steps=2),
            lambda: wishes.submit(2, num_inference_steps=40),
        )
        for future in wishes.futures.values():
            with pytest.raises(GivenBack, match=r"broken.*NaN"):
                future.result(WAIT_SECONDS)
        assert "NaN" in engine.broken


def test_closing_ends_all_that_is_in_flight(spec: ImageSpec) -> None:
    pipeline = SteppingFake(0.02)
    engine = Engine([held(pipeline)])
    engine.start()
    wishes = Wishes(engine, spec)
    begun = threading.Event()
    wishes.at[2, 1] = begun.set
    together(pipeline, *(lambda s=s: wishes.submit(s, num_inference_steps=400) for s in (1, 2)))
    assert begun.wait(WAIT_SECONDS)
    assert engine.close()
    for future in wishes.futures.values():
        with pytest.raises(Cancelled):
            future.result(0)


def test_what_is_finished_is_decoded_between_two_steps(spec: ImageSpec) -> None:
    """A few at a time: those that are still being drawn have their turns in between."""
    pipeline = SteppingFake()
    pipeline.decode_capacity = Capacity(pictures=2, area_pixels=10 * AREA)
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        short = [lambda s=s: wishes.submit(s, num_inference_steps=1) for s in range(5)]
        together(pipeline, *short, lambda: wishes.submit(9, num_inference_steps=9))
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
    assert sorted(seed for decoded in pipeline.decoded for seed in decoded) == [0, 1, 2, 3, 4, 9]
    assert max(map(len, pipeline.decoded)) == 2


def test_turns_are_shared_in_time(spec: ImageSpec) -> None:
    """Eight pictures take about as long as one: their turns are the same."""
    pipeline = SteppingFake(0.02)
    with running(pipeline) as engine:
        wishes = Wishes(engine, spec)
        together(pipeline, *(lambda seed=seed: wishes.submit(seed) for seed in range(8)))
        for future in wishes.futures.values():
            future.result(WAIT_SECONDS)
    assert len(pipeline.turns) <= 6  # 4 steps; the first one may have begun a turn alone


@pytest.mark.parametrize("keep_alive_seconds", [0.0, 60.0])
def test_an_idle_engine_sleeps(
    spec: ImageSpec, monkeypatch: pytest.MonkeyPatch, keep_alive_seconds: float
) -> None:
    sleeps: list[float | None] = []
    wait = Inbox.wait

    def counted(inbox: Inbox, timeout_seconds: float | None) -> None:
        sleeps.append(timeout_seconds)
        wait(inbox, timeout_seconds)

    monkeypatch.setattr(Inbox, "wait", counted)
    pipeline = SteppingFake()
    with running(pipeline, keep_alive_seconds=keep_alive_seconds) as engine:
        wishes = Wishes(engine, spec)
        assert wishes.submit(1).result(WAIT_SECONDS)
        before = len(sleeps)
        time.sleep(0.1)
        assert len(sleeps) <= before + 2  # it goes to sleep, once more if it was just being woken
        last = sleeps[-1]
        assert last is None if not keep_alive_seconds else last is not None and last > 50
        assert wishes.submit(2).result(WAIT_SECONDS)
