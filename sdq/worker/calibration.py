"""What an install finds out about a model on a device, once its files are right.

::

    two steps and a decoding    prove the model, warm the device up, tell how long a step takes
    the proof picture           unless it would take long: then the first one has to do
    turns of 1, 2, 4 … pictures as long as they pay (`sdq.worker.active_set`)
    the same in full numbers    on a CPU that is quick with halves (`sdq.worker.precision`)

On a slow device, SDXL on a CPU for one, a step takes a minute: there it ends with two steps and
a decoding, or little more. Everything runs in the thread that calls and leaves nothing behind
when it is interrupted.
"""

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sdq.errors import GenerationFailed, ModelError, SdqError
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.worker import active_set, memory, precision
from sdq.worker.devices import Device, capacity_of
from sdq.worker.flight import Capacity
from sdq.worker.profile import DrawOptions, Dtype, Profile
from sdq.worker.trial import Findings, Loaded, Report, Trial

MEASURE_SECONDS = 60.0
"""For all that comes after the first proof picture. Looked at between turns: nothing interrupts
one."""

Load = Callable[[Device], Loaded]

_log = logging.getLogger(__name__)


def loader_of(folder: Path, manifest: ModelManifest, options: DrawOptions) -> Load:
    """Loads an installed model as these options want it; raises `ModelError`."""
    most = active_set.MOST_PICTURES
    room = Capacity(most, most * manifest.defaults.width * manifest.defaults.height)

    def load(device: Device) -> Loaded:
        from sdq.worker import offload, pipelines, stepping
        from sdq.worker.whole import as_pipeline

        resting = offload.decide(options.offload, folder, manifest, device)
        made = pipelines.load(folder, manifest, device, offload=resting, compile=options.compile)
        weights_bytes = memory.weights_bytes(made)
        return Loaded(
            as_pipeline(stepping.engine_pipeline(made, device, room)), resting, weights_bytes
        )

    return load


def calibrate(
    load: Load,
    manifest: ModelManifest,
    options: DrawOptions,
    device: Device,
    *,
    measure_seconds: float = MEASURE_SECONDS,
    report: Report = lambda phase, pictures: None,
) -> Profile:
    """Proves the model and measures it for ``measure_seconds`` at most; with 0 it is only proved.

    Raises `ModelError` when it cannot be loaded or its proof picture is none.
    """
    try:
        found = _Calibration(load, manifest, device, measure_seconds, report).run(
            may_halve=device.name == "cpu" and options.dtype == "auto"
        )
    except GenerationFailed as error:
        raise _unfit(manifest, device, error.message) from error
    except SdqError:
        raise
    except Exception as error:  # whatever stops the proof, it is said in words
        raise _unfit(manifest, device, f"{type(error).__name__}: {error}") from error
    profile = _profile_of(found, options, device)
    return profile if measure_seconds else msgspec.structs.replace(profile, turn_seconds={})


class _Calibration:
    def __init__(
        self,
        load: Load,
        manifest: ModelManifest,
        device: Device,
        measure_seconds: float,
        report: Report,
    ) -> None:
        self._load = load
        self._spec = canary_spec(manifest)
        self._golden = manifest.golden
        self._device = device
        self._measure_seconds = measure_seconds
        self._report = report
        self._deadline: float | None = None  # set after the first proof

    def run(self, *, may_halve: bool) -> Findings:
        half = None
        if may_halve and self._measure_seconds and precision.halves_pay_here():
            half = self._in_halves()
        if half is None:
            trial = self._trial(self._device)
            trial.prove()
            return self._measured(trial)
        return self._rather_in_full(half) or half

    def _in_halves(self) -> Findings | None:
        """None when the model cannot be drawn with so: full numbers will show why."""
        try:
            trial = self._trial(msgspec.structs.replace(self._device, dtype="bfloat16"))
            trial.prove()
            return self._measured(trial)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is another way
            _log.debug("not in bfloat16: %s", error)
            return None

    def _rather_in_full(self, half: Findings) -> Findings | None:
        """Tries full numbers too, if there is time and memory for that; None when halves stay.

        Where there is not, the device is slow or small, and halves are what it needs.
        """
        gc.collect()  # the model of the other trial
        free = memory.free_bytes(self._device.name)
        needed = 2 * half.weights_bytes + memory.WORK_BYTES
        expected_seconds = half.load_seconds + 2 * half.proof_seconds
        if expected_seconds > self._seconds_left() or (free is not None and needed > free):
            return None
        try:
            trial = self._trial(self._device)
            trial.draw(half.proof)
            trial.measure(self._seconds_left, most=max(precision.COMPARED))
            full = trial.findings()
            difference = precision.difference_of(half.picture, full.picture)
            if precision.prefers_halves(half.turn_seconds, full.turn_seconds, difference):
                return None
            return self._measured(trial)
        except Exception as error:  # noqa: BLE001 - as above
            _log.debug("not in float32: %s", error)
            return None

    def _trial(self, device: Device) -> Trial:
        return Trial(self._load, device, self._spec, self._report, self._golden)

    def _measured(self, trial: Trial) -> Findings:
        if self._seconds_left() > 0:
            trial.measure(self._seconds_left)
        if self._seconds_left() > 0:
            trial.decode_together()
        return trial.findings()

    def _seconds_left(self) -> float:
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._measure_seconds
        return self._deadline - now


def _profile_of(found: Findings, options: DrawOptions, device: Device) -> Profile:
    one_pixels = found.proof.width * found.proof.height
    at_once = active_set.largest_useful(found.turn_seconds)
    area_pixels = at_once * one_pixels
    if found.is_cut and at_once == 1:  # more were not tried: what is known of such devices
        at_once, area_pixels = capacity_of(device).pictures, capacity_of(device).area_pixels
        at_once = max(1, min(at_once, area_pixels // one_pixels))
    return Profile(
        options=options,
        device_name=device.name,
        device_label=device.label,
        dtype=msgspec.convert(found.device.dtype, Dtype),
        offload=found.offload,
        canary_seconds=found.proof_seconds,
        load_seconds=found.load_seconds,
        weights_bytes=found.weights_bytes,
        peak_bytes=found.peak_bytes,
        at_once=at_once,
        area_pixels=area_pixels,
        turn_seconds=found.turn_seconds,
    )


def _unfit(manifest: ModelManifest, device: Device, reason: str) -> ModelError:
    return ModelError(
        f"{manifest.model_id} was fetched, but its proof picture failed on {device.describe()}: "
        f"{reason}",
        hint="this model is not installed; try --dtype float32, or another device: --device cpu",
    )
