"""``sdq worker install``: fetch, verify, prove, measure, and only then write the configuration."""

import contextlib
import platform
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from sdq.config import Home
from sdq.errors import ModelError, UsageError
from sdq.protocol.messages import WorkerSettings
from sdq.protocol.model import ModelManifest, canary_spec, fingerprint_of
from sdq.worker import canary, models
from sdq.worker.bringing import bring
from sdq.worker.calibration import MEASURE_SECONDS, calibrate, loader_of
from sdq.worker.devices import Device, choose
from sdq.worker.fetch.rate import Rate
from sdq.worker.profile import DrawOptions, Profile

Phase = Literal["wait", "download", "verify", "unpack", "load", "canary", "measure", "done"]

AUTO = DrawOptions()


class InstallProgress(msgspec.Struct, frozen=True):
    """``done_bytes`` of ``total_bytes`` over all files; the total is 0 where a size is unknown.

    ``wait``: another install has the lock; ``file`` is the home in which it works.
    """

    phase: Phase
    file: str
    done_bytes: int
    total_bytes: int
    model_id: str = ""
    at_once: int = 0  # pictures in the turns that are measured
    bytes_per_second: float | None = None  # of a download; None while nobody can say
    seconds_left: float | None = None  # of all files together


class Installed(msgspec.Struct, frozen=True):
    folder: Path
    model_id: str
    worker_id: str
    profile: Profile
    already: bool = False  # nothing had to be done
    is_moved: bool = False  # the worker has worked for another Redis before, with all its models


class Removed(msgspec.Struct, frozen=True):
    folder: Path  # its files are still there
    left: tuple[str, ...]  # the ids of the models that stay


Report = Callable[[InstallProgress], None]


def install(
    settings: WorkerSettings,
    home: Home,
    *,
    options: DrawOptions = AUTO,
    measure_seconds: float = MEASURE_SECONDS,
    report: Report = lambda progress: None,
) -> Installed:
    """Makes this home a worker of the model in ``settings``, beside those that it has.

    Waits for another install in the same home. What is there and right is not fetched again;
    when all is there and was measured with the same ``options`` on the same device, nothing else
    happens. A model of the same id is replaced; its files stay. A worker speaks with one Redis:
    the newest install says with which, for all models (`Installed.is_moved`).

    Raises `DownloadError` (link, hash), `ModelError` (files, proof), `UsageError` (device).
    Safe to cancel: the configuration is written at the very end, parts of files are kept.
    """
    manifest = settings.model
    _check_manifest(manifest)
    device = choose(options.device, options.dtype)

    tell = _Teller(report, manifest.model_id)
    with _alone(home, lambda: tell("wait", str(home.root))):
        folder = models.model_folder(home, manifest)
        known = _known(home)
        doubted = canary.is_marked(home)  # nothing of it is taken at its word
        fetched = bring(manifest, folder, tell, all_anew=doubted, rate=tell.rate)
        profile = _counting(known, manifest, options, device, to_be_measured=measure_seconds > 0)
        already = not (profile is None or fetched or doubted or _looks_new(known, manifest))
        if profile is None or not already:
            proved = calibrate(
                loader_of(folder, manifest, options),
                manifest,
                options,
                device,
                measure_seconds=measure_seconds,
                report=lambda phase, at_once: tell(phase, at_once=at_once),
            )
            # Without a measurement, what an earlier one has found of the same files stays.
            profile = proved if profile is None or measure_seconds > 0 else profile
        is_moved = _save(home, known, settings, models.InstalledModel(manifest, profile))
        canary.unmark(home)
        tell("done")
        worker_id = models.load_config(home).worker_id
    return Installed(folder, manifest.model_id, worker_id, profile, already, is_moved)


class _Teller:
    """Says how far one installation is. ``rate`` hears of what arrives."""

    def __init__(self, report: Report, model_id: str) -> None:
        self._report = report
        self._model_id = model_id
        self.rate = Rate()

    def __call__(
        self, phase: Phase, file: str = "", done: int = 0, total: int = 0, *, at_once: int = 0
    ) -> None:
        speed = left = None
        if phase == "download":
            speed = self.rate.bytes_per_second()
            left = self.rate.seconds_left(max(0, total - done)) if total else None
        progress = InstallProgress(phase, file, done, total, self._model_id, at_once, speed, left)
        self._report(progress)


def remove(home: Home, model_id: str) -> Removed:
    """Takes a model out of the configuration; its files stay. A worker that runs keeps it until
    its next start. Raises `UsageError` when it is not installed."""
    with _alone(home):
        config = models.load_config(home)
        found = config.find(model_id)
        if found is None:
            ids = ", ".join(held.model_id for held in config.held())
            raise UsageError(f"{model_id!r} is not installed here", hint=f"installed: {ids}")
        left = config.without(model_id)
        models.save_config(home, left)
    return Removed(
        models.model_folder(home, found.manifest), tuple(held.model_id for held in left.held())
    )


@contextlib.contextmanager
def _alone(home: Home, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """While no other install works in this home. ``on_wait``: one does, we wait for it."""
    lock = home.worker_dir / "install.lock"
    with contextlib.ExitStack() as held:
        if not held.enter_context(models.locked(lock, wait=False)):
            on_wait()
            held.enter_context(models.locked(lock, wait=True))
        yield


def _check_manifest(manifest: ModelManifest) -> None:
    if not manifest.files or fingerprint_of(manifest.files) != manifest.fingerprint:
        raise ModelError(
            f"the server's description of {manifest.model_id} contradicts itself",
            hint="its fingerprint is not that of its files: check the server's catalog",
        )


def _known(home: Home) -> models.WorkerConfig | None:
    """The present configuration; one that cannot be read counts as none, it will be replaced."""
    try:
        return models.read_config(home)
    except UsageError:
        return None


def _counting(
    known: models.WorkerConfig | None,
    manifest: ModelManifest,
    options: DrawOptions,
    device: Device,
    *,
    to_be_measured: bool,
) -> Profile | None:
    """What an earlier install has found, when it still says something, and enough."""
    found = known.find(manifest.model_id) if known else None
    if found is None or _subject_of(found.manifest) != _subject_of(manifest):
        return None
    is_enough = bool(found.profile.turn_seconds) or not to_be_measured
    return found.profile if is_enough and found.profile.counts(options, device) else None


def _subject_of(manifest: ModelManifest) -> tuple[object, ...]:
    """What was measured: these files, with a picture like this one."""
    return manifest.fingerprint, canary_spec(manifest)


def _looks_new(known: models.WorkerConfig | None, manifest: ModelManifest) -> bool:
    """Whether the proof picture is to be compared with another golden one than before."""
    found = known.find(manifest.model_id) if known else None
    return found is None or found.manifest.golden != manifest.golden


def _save(
    home: Home,
    known: models.WorkerConfig | None,
    settings: WorkerSettings,
    installed: models.InstalledModel,
) -> bool:
    """Writes the configuration if it is another one; whether it is another Redis's now."""
    before = known or models.WorkerConfig(
        redis_url=settings.redis_url,
        worker_id=models.known_worker_id(home) or _new_worker_id(),
        models=(),
    )
    wanted = msgspec.structs.replace(before.with_model(installed), redis_url=settings.redis_url)
    if wanted != known:
        models.save_config(home, wanted)
    return bool(before.models) and wanted.redis_url != before.redis_url


def _new_worker_id() -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", platform.node() or "worker")[:80]
    return f"{host}-{secrets.token_hex(4)}"
