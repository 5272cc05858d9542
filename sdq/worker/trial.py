"""One model in memory on one device, in one precision: proved, then timed turn by turn."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
from PIL.Image import Image

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec
from sdq.worker import active_set, canary, memory
from sdq.worker.devices import Device, decode_capacity_of, settle
from sdq.worker.flight import Flight, Pipeline
from sdq.worker.profile import Offload
from sdq.worker.whole import Whole

PROOF_SECONDS = 30.0
"""A proof picture that would take longer is drawn with `FEW_STEPS`."""

FEW_STEPS = 2

MEMORY_SHARE = 0.8
"""Of the memory that is free beside the weights, so much may be used by a turn."""

Phase = Literal["load", "canary", "measure"]
Report = Callable[[Phase, int], None]
"""What begins now, and how many pictures there are in a turn."""


class Loaded(NamedTuple):
    """A model in memory, willing to take many pictures at once."""

    pipeline: Pipeline
    offload: Offload  # what became of `auto`
    weights_bytes: int


class Findings(msgspec.Struct, frozen=True):
    """What remains of a trial when its model has left."""

    device: Device
    offload: Offload
    proof: ImageSpec  # with fewer steps where the device is slow
    picture: Image
    proof_seconds: float
    load_seconds: float
    weights_bytes: int
    turn_seconds: dict[int, float]  # by the number of pictures in a turn
    is_cut: bool  # there was no time to look further
    peak_bytes: int  # of the device's memory, weights and work; 0: nobody can say


class Trial:
    """``load`` is called at once and raises what it raises. ``golden``: what the proof picture of
    ``spec`` should look like; one of `FEW_STEPS` is not compared with it.

    For one thread, one at a time. It may be interrupted at any moment: nothing outlives it.
    """

    def __init__(
        self,
        load: Callable[[Device], Loaded],
        device: Device,
        spec: ImageSpec,
        report: Report,
        golden: str = "",
    ) -> None:
        self._device = device
        self._spec = spec
        self._golden = golden
        self._few = msgspec.structs.replace(
            spec, num_inference_steps=min(FEW_STEPS, spec.num_inference_steps)
        )
        self._report = report
        self._memory = _Memory(device.name)
        report("load", 1)
        began = time.perf_counter()
        self._loaded = load(device)
        self._load_seconds = time.perf_counter() - began
        self._memory.note_weights()
        self._pipeline = self._loaded.pipeline
        self._is_whole = isinstance(self._pipeline, Whole)
        self._proof: tuple[ImageSpec, Image, float] | None = None
        self._sizes = active_set.Sizes({}, is_cut=True)
        self._flying: list[Flight] = []
        self._seed = 0
        self._most_told = 0

    def prove(self) -> None:
        """Draws the proof picture.

        First with `FEW_STEPS`, which also warms the device up; then as it should be, unless that
        would take longer than `PROOF_SECONDS`. Raises `GenerationFailed` when what comes out is
        no picture, else whatever stopped it.
        """
        step_seconds = self.draw(self._few)
        if (
            self._few != self._spec
            and step_seconds * self._spec.num_inference_steps <= PROOF_SECONDS
        ):
            self.draw(self._spec)

    def draw(self, spec: ImageSpec) -> float:
        """Draws this one as the proof picture; the seconds of its last step. Raises as `prove`."""
        self._report("canary", 1)
        began = time.perf_counter()
        with self._memory.watched(1):
            flights = [self._begun(spec)]
            turn_seconds = 0.0
            while not flights[0].is_finished:
                turn_began = time.perf_counter()
                self._advance(flights)
                turn_seconds = time.perf_counter() - turn_began
            (made,) = self._pipeline.decode(flights)
        if isinstance(made, Exception):
            raise made
        golden = self._golden if spec == self._spec else ""
        if fault := canary.fault_of(made, spec, golden):
            raise GenerationFailed(fault)
        self._proof = (spec, made, time.perf_counter() - began)
        step_seconds = turn_seconds / (spec.num_inference_steps if self._is_whole else 1)
        self._sizes = active_set.Sizes({1: step_seconds}, is_cut=True)
        return step_seconds

    def measure(
        self, seconds_left: Callable[[], float], most: int = active_set.MOST_PICTURES
    ) -> None:
        """Times turns of up to ``most`` pictures; again, those that were timed before."""
        found = active_set.measure(
            self._turn,
            prepare=self._prepare,
            seconds_left=seconds_left,
            fits=self._memory.has_room,
            most=min(most, self._pipeline.capacity.pictures),
            work_clock=work_clock_of(self._device),
        )
        self._flying.clear()
        steps = self._few.num_inference_steps if self._is_whole else 1
        seconds = {size: seconds / steps for size, seconds in found.turn_seconds.items()}
        self._sizes = active_set.Sizes(seconds or self._sizes.turn_seconds, found.is_cut)

    def decode_together(self) -> None:
        """Decodes as many as are decoded at once in earnest, for the memory that it takes."""
        limit = decode_capacity_of(self._device)
        area_pixels = self._spec.width * self._spec.height
        at_once = active_set.largest_useful(self._sizes.turn_seconds)
        count = min(at_once, limit.pictures, limit.area_pixels // area_pixels)
        if count < 2 or self._is_whole:
            return
        with contextlib.suppress(MemoryError), self._memory.watched(count):
            flights = [self._begun(self._few) for _ in range(count)]
            while not all(flight.is_finished for flight in flights):
                self._advance(flights)
            self._pipeline.decode(flights)

    def findings(self) -> Findings:
        """What was found so far, after `draw` or `prove`."""
        assert self._proof is not None
        proof, picture, proof_seconds = self._proof
        at_once = active_set.largest_useful(self._sizes.turn_seconds)
        return Findings(
            device=self._device,
            offload=self._loaded.offload,
            proof=proof,
            picture=picture,
            proof_seconds=proof_seconds,
            load_seconds=self._load_seconds,
            weights_bytes=self._loaded.weights_bytes,
            turn_seconds=self._sizes.turn_seconds,
            is_cut=self._sizes.is_cut,
            peak_bytes=self._memory.peak_bytes(at_once, self._loaded.weights_bytes),
        )

    def _prepare(self, pictures: int) -> None:
        """So many in flight, those of the last turn among them."""
        if pictures > self._most_told:
            self._most_told = pictures
            self._report("measure", pictures)
        self._flying = [flight for flight in self._flying if not flight.is_finished]
        spec = self._few if self._is_whole else self._spec
        while len(self._flying) < pictures:
            self._seed += 1
            self._flying.append(self._begun(msgspec.structs.replace(spec, seed=self._seed)))
        settle(self._device)

    def _turn(self, pictures: int) -> None:
        with self._memory.watched(pictures):
            self._advance(self._flying[:pictures])

    def _begun(self, spec: ImageSpec) -> Flight:
        return self._pipeline.begin(spec, lambda step, steps: None)

    def _advance(self, flights: Sequence[Flight]) -> None:
        """One turn, to its end. Raises what stopped it or any of the pictures."""
        for fault in self._pipeline.step(flights):
            if fault is not None:
                raise fault
        settle(self._device)


def work_clock_of(device: Device) -> active_set.Clock | None:
    """What a CPU has done for this process. Of others, the device's own time is all there is."""
    return time.process_time if device.name == "cpu" else None


class _Memory:
    """What the model and its work take of the device. `None` where nobody can say."""

    def __init__(self, device_name: str) -> None:
        self._device_name = device_name
        self._before = self._in_use()
        self._with_weights = self._before
        self._free: int | None = None
        self._peaks: dict[int, int] = {}

    def note_weights(self) -> None:
        """Call when they are in memory, and nothing else is."""
        self._with_weights = self._in_use()
        self._free = memory.free_bytes(self._device_name)

    @contextlib.contextmanager
    def watched(self, pictures: int) -> Iterator[None]:
        """While so many are worked on at once."""
        with memory.Peak(self._device_name) as peak:
            yield
        self._peaks[pictures] = max(peak.peak_bytes or 0, self._peaks.get(pictures, 0))

    def has_room(self, pictures: int) -> bool:
        """Whether so many will fit, by what half of them took; twice that at most."""
        half = self._peaks.get(pictures // 2, 0)
        if self._free is None or self._with_weights is None or not half:
            return True
        return 2 * (half - self._with_weights) <= MEMORY_SHARE * self._free

    def peak_bytes(self, pictures: int, weights_bytes: int) -> int:
        """At most, weights and work, with so many at once; 0 when nobody can say."""
        most = max((peak for size, peak in self._peaks.items() if size <= pictures), default=0)
        if self._before is None or self._with_weights is None:
            return 0
        if self._device_name == "cpu":  # the process has also grown by what it had to import
            return weights_bytes + max(0, most - self._with_weights)
        return max(0, most - self._before)

    def _in_use(self) -> int | None:
        with memory.Peak(self._device_name) as peak:
            pass
        return peak.peak_bytes
