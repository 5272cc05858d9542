"""Several models in one engine: they come when asked for, take turns, and leave for each other."""

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from sdq.errors import ModelError, OutOfMemory, ServerBusy
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.spec import ImageSpec
from sdq.testing.stepping import SteppingFake
from sdq.worker import refusals
from sdq.worker.engine import DrawnImage, Engine, GivenBack
from sdq.worker.flight import Capacity, Flight
from sdq.worker.holding import Holding

Wait = Callable[[Callable[[], object]], None]
WAIT_SECONDS = 10.0


class Models:
    """Fake models that write down when they come; each needs so many bytes."""

    def __init__(self, spec: ImageSpec, canary: ImageSpec | None = None, **needs: int) -> None:
        self.spec = spec
        self.pipelines = {name: SteppingFake() for name in needs}
        self.errors: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.log: list[str] = []
        """``+a``: a was loaded; ``-a``: it had left."""
        self.holdings = [
            Holding(
                name,
                lambda name=name: self._load(name),  # type: ignore[misc]
                msgspec.structs.replace(canary, model=name) if canary else None,
                needs_bytes=need,
                release=lambda name=name: self.log.append(f"-{name}"),  # type: ignore[misc]
            )
            for name, need in needs.items()
        ]

    def _load(self, name: str) -> SteppingFake:
        if name in self.gates:
            assert self.gates[name].wait(WAIT_SECONDS)
        self.log.append(f"+{name}")
        if name in self.errors:
            raise self.errors[name]
        return self.pipelines[name]

    @contextmanager
    def running(self, **options: Any) -> Iterator[Engine]:
        options = {"patience_seconds": 0.05} | options
        self.engine = Engine(self.holdings, **options)
        self.engine.start()
        self.engine.wait_ready(WAIT_SECONDS)
        try:
            yield self.engine
        finally:
            for event in (*self.gates.values(), *(one.gate for one in self.pipelines.values())):
                event.set()
            assert self.engine.close()

    def submit(self, name: str, seed: int = 0, **changes: Any) -> Future[DrawnImage]:
        listen = {"on_step": lambda *_: None, "is_cancelled": lambda: False}
        listen |= {key: changes.pop(key) for key in tuple(changes) if key in listen}
        spec = msgspec.structs.replace(self.spec, model=name, seed=seed, **changes)
        return self.engine.submit(spec, **listen)


def test_the_first_is_there_and_others_come_when_asked_for(spec: ImageSpec) -> None:
    models = Models(spec, a=0, b=0, c=0)
    models.pipelines["b"].capacity = Capacity(pictures=20, area_pixels=10**9)
    with models.running() as engine:
        assert engine.loaded == ("a",)
        assert engine.at_once == 8
        assert models.submit("b").result(WAIT_SECONDS)
        assert models.submit("a").result(WAIT_SECONDS)
        assert engine.loaded == engine.serving == ("a", "b")
        assert engine.at_once == 20
    assert models.log == ["+a", "+b"]
    assert [drawn.model for drawn in models.pipelines["b"].drawn] == ["b"]


def test_a_model_that_is_not_held_is_given_back(spec: ImageSpec) -> None:
    models = Models(spec, a=0)
    with models.running(), pytest.raises(GivenBack, match="does not hold the model 'z'"):
        models.submit("z")


def test_one_draws_while_another_one_is_loaded(spec: ImageSpec) -> None:
    models = Models(spec, a=0, b=0)
    models.gates["b"] = threading.Event()
    with models.running() as engine:
        waiting = models.submit("b")
        for seed in range(3):
            assert models.submit("a", seed).result(WAIT_SECONDS)
        assert not waiting.done()
        assert engine.loaded == ("a",)
        assert engine.serving == ("a", "b")  # it is coming
        models.gates["b"].set()
        assert waiting.result(WAIT_SECONDS)


def test_models_with_work_take_turns(spec: ImageSpec) -> None:
    models = Models(spec, a=0, b=0)
    for pipeline in models.pipelines.values():
        pipeline.seconds_per_turn = 0.005
    with models.running():
        models.submit("b").result(WAIT_SECONDS)  # it is there
        models.pipelines["a"].gate.clear()
        long = models.submit("a", num_inference_steps=40)
        short = models.submit("b", num_inference_steps=8)
        models.pipelines["a"].gate.set()
        assert short.result(WAIT_SECONDS)
        done = len(models.pipelines["a"].turns)
        assert 1 <= done <= 20  # not all of them, and not none
        assert long.result(WAIT_SECONDS)


def test_an_idle_one_leaves_for_one_that_needs_its_memory(spec: ImageSpec) -> None:
    models = Models(spec, a=6, b=6)
    with models.running(budget_bytes=10) as engine:
        for name in "baab":
            assert models.submit(name).result(WAIT_SECONDS)
        assert engine.loaded == ("b",)
    assert models.log == ["+a", "-a", "+b", "-b", "+a", "-a", "+b"]


def test_what_leaves_is_not_kept_by_anybody(spec: ImageSpec, wait_for: Wait) -> None:
    models = Models(spec, a=6, b=6)
    with models.running(budget_bytes=10) as engine:
        failing = models.submit("a", prompt="a bad cat", on_step=_raise)
        with pytest.raises(KeyError):
            failing.result(WAIT_SECONDS)
        del failing
        assert models.submit("a", 1).result(WAIT_SECONDS)
        gone = weakref.ref(models.pipelines.pop("a"))
        gc.collect()
        assert gone() is not None
        assert models.submit("b").result(WAIT_SECONDS)
        assert engine.loaded == ("b",)
        wait_for(lambda: gone() is None)


def _raise(*_: object) -> None:
    raise KeyError("the listener")


def test_patience(spec: ImageSpec) -> None:
    """Arrivals of the loaded model go on joining, but the other one gets its time."""
    models = Models(spec, a=6, b=6)
    models.pipelines["a"].seconds_per_turn = 0.002
    with models.running(budget_bytes=10, patience_seconds=0.1):
        busy = [models.submit("a", 0)]
        began = time.monotonic()
        other = models.submit("b")
        seed = 0
        while not other.done():
            seed += 1
            busy = [future for future in busy if not future.done()]
            if len(busy) < 4:
                busy.append(models.submit("a", seed))
            time.sleep(0.001)
        assert time.monotonic() - began >= 0.1
        assert other.result(0)
        joined = len({seed for turn in models.pipelines["a"].turns for seed, _ in turn})
        assert joined > 4
        for future in busy:
            assert future.result(WAIT_SECONDS)
    assert models.log[:3] == ["+a", "-a", "+b"]


def test_nobody_starves_between_two_that_are_always_busy(spec: ImageSpec, wait_for: Wait) -> None:
    models = Models(spec, a=6, b=6)
    done = {"a": 0, "b": 0}
    with models.running(budget_bytes=10, patience_seconds=0.02):

        def again(name: str) -> None:
            with contextlib.suppress(ServerBusy):  # until it closes
                models.submit(name, done[name]).add_done_callback(lambda _: count(name))

        def count(name: str) -> None:
            done[name] += 1
            again(name)

        for name in "ab" * 6:
            again(name)
        wait_for(lambda: models.log.count("+a") >= 3 and models.log.count("+b") >= 3)
    assert min(done.values()) >= 12


def test_keep_alive(spec: ImageSpec, wait_for: Wait) -> None:
    models = Models(spec, a=0, b=0)
    with models.running(keep_alive_seconds=0.03) as engine:
        wait_for(lambda: engine.loaded == ())
        assert models.submit("b").result(WAIT_SECONDS)
        assert engine.at_once == 8
        wait_for(lambda: engine.loaded == ())
    assert models.log == ["+a", "-a", "+b", "-b"]


# ---------------------------------------------------------------- what fails


def test_a_model_that_cannot_be_loaded_fails_only_its_own(
    spec: ImageSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = Models(spec, a=0, b=0)
    models.errors["b"] = ModelError("no such file")
    with models.running() as engine:
        futures = [models.submit("b", 0), models.submit("a"), models.submit("b", 1)]
        for future in (futures[0], futures[2]):
            with pytest.raises(GivenBack, match="b cannot be loaded here: no such file"):
                future.result(WAIT_SECONDS)
        assert futures[1].result(WAIT_SECONDS)
        with pytest.raises(GivenBack, match="no such file"):
            models.submit("b")
        assert engine.unloadable == {"b": "no such file"}
        assert models.log.count("+b") == 1
        assert "b cannot be loaded, its jobs are given back for now: no such file" in caplog.text
        monkeypatch.setattr(refusals.Refusals, "reason", lambda self, model_id: "")  # time passes
        models.errors.clear()
        assert models.submit("b").result(WAIT_SECONDS)
        assert engine.loaded == ("a", "b")
        monkeypatch.undo()
        assert engine.unloadable == {}


def test_the_next_one_comes_when_the_first_cannot(spec: ImageSpec) -> None:
    models = Models(spec, a=0, b=0)
    models.errors["a"] = OSError("no such file")
    with models.running() as engine:
        assert engine.loaded == ("b",)
        assert engine.unloadable == {"a": "OSError: no such file"}
        assert models.submit("b").result(WAIT_SECONDS)
        with pytest.raises(GivenBack):
            models.submit("a")


def test_none_can_be_loaded(spec: ImageSpec) -> None:
    models = Models(spec, a=0, b=0)
    models.errors.update(a=OSError("no such file"), b=ModelError("the last one"))
    with pytest.raises(ModelError, match="the last one"), models.running():
        pass
    assert models.engine.close()


def test_one_too_large_beside_others_is_loaded_alone(spec: ImageSpec) -> None:
    """As when nobody knows what models need: the device says so."""
    models = Models(spec, a=0, b=0)
    load = models._load

    def crowded(name: str) -> SteppingFake:
        if name == "b" and models.log[-1] != "-a":
            models.log.append("full")
            raise ModelError("does not fit") from MemoryError()
        return load(name)

    models._load = crowded  # type: ignore[method-assign]
    with models.running() as engine:
        assert models.submit("b").result(WAIT_SECONDS)
        assert engine.loaded == ("b",)
        assert engine.unloadable == {}
    assert models.log == ["+a", "full", "-a", "+b"]


def test_a_picture_too_large_beside_another_model_is_drawn_alone(spec: ImageSpec) -> None:
    models = Models(spec, a=0, b=0)

    class Crowded(SteppingFake):
        def step(self, flights: Sequence[Flight]) -> list[Exception | None]:
            self.fits_pixels = 128 * 128 if models.engine.loaded == ("a",) else 64 * 48
            return super().step(flights)

    models.pipelines["a"] = Crowded()
    with models.running() as engine:
        assert models.submit("b").result(WAIT_SECONDS)
        futures = [models.submit("a"), models.submit("a", 1, width=128, height=128)]
        for future in futures:
            assert future.result(WAIT_SECONDS)
        assert engine.loaded == ("a",)
        with pytest.raises(OutOfMemory):
            models.submit("a", width=256, height=256).result(WAIT_SECONDS)
        assert models.submit("b").result(WAIT_SECONDS)
    assert models.log == ["+a", "+b", "-b", "+b"]


def test_a_canary_is_that_of_the_model_in_doubt(spec: ImageSpec, manifest: ModelManifest) -> None:
    models = Models(spec, canary_spec(manifest), a=0, b=0)
    models.pipelines["b"].nan_on = "bad"
    with models.running() as engine:
        with pytest.raises(Exception, match="NaN"):
            models.submit("b", prompt="a bad cat").result(WAIT_SECONDS)
        assert models.submit("b").result(WAIT_SECONDS)
        assert [drawn.prompt for drawn in models.pipelines["b"].drawn] == [
            "a bad cat",
            canary_spec(manifest).prompt,
            "a cat",
        ]
        assert models.pipelines["a"].drawn == []
        models.pipelines["b"].break_after = 1
        with pytest.raises(GivenBack, match="broken"):
            models.submit("b").result(WAIT_SECONDS)
        assert engine.broken_model == "b"


def test_each_is_proven_when_it_comes_for_the_first_time(
    spec: ImageSpec, manifest: ModelManifest
) -> None:
    models = Models(spec, canary_spec(manifest), a=6, b=6)
    with models.running(prove_first=True, budget_bytes=10):
        for name in "bab":
            assert models.submit(name).result(WAIT_SECONDS)
    proof = canary_spec(manifest).prompt
    for name, prompts in {"a": [proof, "a cat"], "b": [proof, "a cat", "a cat"]}.items():
        assert [drawn.prompt for drawn in models.pipelines[name].drawn] == prompts


# ---------------------------------------------------------------- closing


def test_closing_does_not_wait_for_a_load_that_hangs(spec: ImageSpec) -> None:
    models = Models(spec, a=0)
    models.gates["a"] = threading.Event()
    engine = Engine(models.holdings)
    engine.start()
    assert not engine.close(timeout_seconds=0.02)
    models.gates["a"].set()
    assert engine.close()
    with pytest.raises(Exception, match="stopping"):
        engine.wait_ready(0)


def test_changes_are_told(spec: ImageSpec) -> None:
    models = Models(spec, a=6, b=6)
    seen: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def look() -> None:
        seen.append((models.engine.loaded, models.engine.serving))

    with models.running(budget_bytes=10, on_change=look):
        assert models.submit("b").result(WAIT_SECONDS)
    assert seen == [((), ("a",)), (("a",), ("a",)), ((), ("b",)), (("b",), ("b",))]
