"""What an install makes of its trials. The models are fakes; the decisions are not."""

import msgspec
import pytest

from sdq.errors import ModelError
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.testing.stepping import SteppingFake
from sdq.worker import memory, precision, trial
from sdq.worker.calibration import calibrate
from sdq.worker.devices import Device
from sdq.worker.flight import Capacity
from sdq.worker.profile import DrawOptions, Profile
from sdq.worker.trial import Loaded
from sdq.worker.whole import as_pipeline

CPU = Device(name="cpu", dtype="float32", label="cpu (fake, 2 threads)")
ROOM = Capacity(4, 10**9)
QUICK, SLOW = 0.001, 0.006


def fake(seconds_per_turn: float = QUICK, **options: str) -> SteppingFake:
    return SteppingFake(seconds_per_turn, capacity=ROOM, **options)


class Shelf:
    """A model by its precision; what is not there cannot be loaded."""

    def __init__(self, **by_dtype: SteppingFake) -> None:
        self.by_dtype = by_dtype
        self.loads: list[str] = []

    def load(self, device: Device) -> Loaded:
        self.loads.append(device.dtype)
        if device.dtype not in self.by_dtype:
            raise ModelError(f"no {device.dtype} here")
        return Loaded(as_pipeline(self.by_dtype[device.dtype]), "none", 1_000)


@pytest.fixture(autouse=True)
def halves_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor of the newer kind. The fakes sleep on it, which is no work."""
    monkeypatch.setattr(trial, "work_clock_of", lambda device: None)
    monkeypatch.setattr(precision, "halves_pay_here", lambda: True)


def calibrated(
    shelf: Shelf,
    manifest: ModelManifest,
    options: DrawOptions = DrawOptions(),  # noqa: B008 - frozen
    measure_seconds: float = 60.0,
) -> Profile:
    device = CPU if options.dtype == "auto" else msgspec.structs.replace(CPU, dtype=options.dtype)
    return calibrate(shelf.load, manifest, options, device, measure_seconds=measure_seconds)


def test_halves_where_they_are_quicker(manifest: ModelManifest) -> None:
    shelf = Shelf(bfloat16=fake(QUICK), float32=fake(SLOW))
    profile = calibrated(shelf, manifest)
    assert shelf.loads == ["bfloat16", "float32"]
    assert profile.dtype == "bfloat16"
    assert (profile.options, profile.device_name) == (DrawOptions(), "cpu")
    assert profile.device_label == "cpu (fake, 2 threads)"
    assert profile.at_once == 4
    assert profile.area_pixels == 4 * 64 * 64
    assert set(profile.turn_seconds) == {1, 2, 4}
    assert profile.turn_seconds[1] < SLOW
    assert profile.weights_bytes == 1_000


def test_full_numbers_where_they_are_not(manifest: ModelManifest) -> None:
    profile = calibrated(Shelf(bfloat16=fake(SLOW), float32=fake(QUICK)), manifest)
    assert profile.dtype == "float32"
    assert profile.turn_seconds[1] < SLOW


def test_full_numbers_where_halves_draw_something_else(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "difference_of", lambda one, other: 9.0)
    profile = calibrated(Shelf(bfloat16=fake(QUICK), float32=fake(SLOW)), manifest)
    assert profile.dtype == "float32"
    assert profile.turn_seconds[1] >= SLOW


@pytest.mark.parametrize("fault", ["nan_on", "black_on", "fail_on", "out_of_memory_on"])
def test_halves_that_draw_nothing_are_let_go(manifest: ModelManifest, fault: str) -> None:
    broken = fake(**{fault: "circle"})  # the proof picture's prompt has it
    assert calibrated(Shelf(bfloat16=broken, float32=fake(SLOW)), manifest).dtype == "float32"
    assert calibrated(Shelf(float32=fake(SLOW)), manifest).dtype == "float32"


def test_halves_where_full_numbers_cannot_be_tried(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Shelf(bfloat16=fake(QUICK), float32=fake(QUICK))
    assert calibrated(Shelf(bfloat16=fake(QUICK)), manifest).dtype == "bfloat16"
    assert calibrated(both, manifest, measure_seconds=1e-9).dtype == "bfloat16"
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: memory.WORK_BYTES)
    assert calibrated(both, manifest).dtype == "bfloat16"
    assert "float32" not in both.loads


@pytest.mark.parametrize("fault", ["nan_on", "black_on", "fail_on", "out_of_memory_on"])
def test_no_proof_no_profile(manifest: ModelManifest, fault: str) -> None:
    broken = fake(**{fault: "circle"})
    with pytest.raises(ModelError, match=r"proof picture failed on cpu \(fake") as caught:
        calibrated(Shelf(bfloat16=broken, float32=broken), manifest)
    assert "--device" in caught.value.hint


def test_a_model_that_cannot_be_loaded_says_so_itself(manifest: ModelManifest) -> None:
    with pytest.raises(ModelError, match="no float32 here"):
        calibrated(Shelf(), manifest)


def test_a_precision_that_was_asked_for_is_not_compared(manifest: ModelManifest) -> None:
    shelf = Shelf(bfloat16=fake(QUICK), float32=fake(SLOW))
    assert calibrated(shelf, manifest, DrawOptions(dtype="float32")).dtype == "float32"
    assert calibrated(shelf, manifest, DrawOptions(dtype="bfloat16")).dtype == "bfloat16"
    assert shelf.loads == ["float32", "bfloat16"]


def test_a_processor_without_halves_is_not_asked_for_them(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "halves_pay_here", lambda: False)
    shelf = Shelf(bfloat16=fake(QUICK), float32=fake(SLOW))
    assert calibrated(shelf, manifest).dtype == "float32"
    assert shelf.loads == ["float32"]


def test_without_a_measurement_the_device_is_as_such_devices_are(manifest: ModelManifest) -> None:
    shelf = Shelf(bfloat16=fake(QUICK), float32=fake(SLOW))
    profile = calibrated(shelf, manifest, measure_seconds=0.0)
    assert profile.dtype == "float32"
    assert shelf.loads == ["float32"]
    assert shelf.by_dtype["float32"].drawn[-1] == canary_spec(manifest)
    assert profile.at_once == 8  # as many as on any CPU
    assert profile.turn_seconds == {}


def test_one_at_once_where_two_do_not_fit(manifest: ModelManifest) -> None:
    small = SteppingFake(QUICK, capacity=ROOM, fits_pixels=64 * 64)
    profile = calibrated(Shelf(float32=small), manifest, DrawOptions(dtype="float32"))
    assert (profile.at_once, profile.area_pixels) == (1, 64 * 64)


def test_a_slow_device_is_left_alone_after_few_steps(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that take longer than all that may be measured."""
    monkeypatch.setattr(trial, "PROOF_SECONDS", 0.05)
    slow = fake(0.05)
    profile = calibrated(
        Shelf(float32=slow), manifest, DrawOptions(dtype="float32"), measure_seconds=0.01
    )
    assert len(slow.turns) == 2 + 1  # two steps of the proof, and one turn to be timed
    assert profile.at_once == 8


def test_what_is_going_on_is_told(manifest: ModelManifest) -> None:
    news: list[tuple[str, int]] = []
    calibrate(
        Shelf(float32=fake()).load,
        manifest,
        DrawOptions(dtype="float32"),
        CPU,
        report=lambda phase, at_once: news.append((phase, at_once)),
    )
    assert news[0] == ("load", 1)
    assert ("canary", 1) in news
    assert news[-1] == ("measure", 4)
