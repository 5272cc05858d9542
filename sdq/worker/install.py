"""``sdq worker install``: fetch, verify, draw a canary, and only then write the configuration."""

import platform
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from sdq.config import Home
from sdq.errors import GenerationFailed, ModelError, SdqError, UsageError
from sdq.protocol.messages import WorkerSettings
from sdq.protocol.model import ModelManifest, canary_spec, fingerprint_of
from sdq.worker import canary, models
from sdq.worker.download import fetch_file, place
from sdq.worker.engine import DrawnImage, Engine
from sdq.worker.holding import Holding

Phase = Literal["download", "verify", "canary", "done"]


class InstallProgress(msgspec.Struct, frozen=True):
    """``done_bytes`` of ``total_bytes`` over all files; the total is 0 where a size is unknown."""

    phase: Phase
    file: str
    done_bytes: int
    total_bytes: int


class Installed(msgspec.Struct, frozen=True):
    folder: Path
    model_id: str
    canary_seconds: float
    worker_id: str
    already: bool = False  # nothing had to be done


Report = Callable[[InstallProgress], None]


def install(
    settings: WorkerSettings,
    home: Home,
    *,
    device: str = "auto",
    report: Report = lambda progress: None,
) -> Installed:
    """Makes this home a worker of the model in ``settings``.

    Waits for another install in the same home. What is there and right is not fetched again;
    when all is there and the configuration is the same, nothing else happens. A worker holds
    one model: installing another one takes its place in the configuration, the files stay.

    Raises `DownloadError` (link, hash), `ModelError` (files, canary), `UsageError` (device).
    Safe to cancel: the configuration is written at the very end, parts of files are kept.
    """
    manifest = settings.model
    _check_manifest(manifest)
    with models.locked(home.worker_dir / "install.lock", wait=True):
        folder = models.model_folder(home, manifest)
        known = _known(home)
        doubted = canary.is_marked(home)  # nothing of it is taken at its word
        fetched = _fetch_all(manifest, folder, report, all_anew=doubted)
        proof = _proof(known, manifest, device) if not fetched and not doubted else None
        already = proof is not None
        if proof is None:
            report(InstallProgress("canary", "", 0, 0))
            proof = models.Canary(device, _draw_canary(folder, manifest, device).draw_seconds)
        worker_id = known.worker_id if known else _new_worker_id()
        wanted = models.WorkerConfig(
            redis_url=settings.redis_url,
            worker_id=worker_id,
            models=(models.InstalledModel(manifest, proof),),
        )
        if wanted != known:
            models.save_config(home, wanted)
        canary.unmark(home)
        report(InstallProgress("done", "", 0, 0))
    return Installed(folder, manifest.model_id, proof.draw_seconds, worker_id, already)


def _check_manifest(manifest: ModelManifest) -> None:
    if not manifest.files or fingerprint_of(manifest.files) != manifest.fingerprint:
        raise ModelError(
            f"the server's description of {manifest.model_id} contradicts itself",
            hint="its fingerprint is not that of its files: check the server's catalog",
        )


def _known(home: Home) -> models.WorkerConfig | None:
    """The present configuration; a broken one counts as none, it is about to be replaced."""
    try:
        return models.load_config(home)
    except UsageError:
        return None


def _fetch_all(manifest: ModelManifest, folder: Path, report: Report, *, all_anew: bool) -> bool:
    """Brings all files; True when one had to be fetched. ``all_anew``: trusts no earlier look."""
    stamps = {} if all_anew else models.read_stamps(folder)
    sizes = [file.size_bytes for file in manifest.files]
    total_bytes = 0 if None in sizes else sum(size or 0 for size in sizes)
    done_bytes, fetched = 0, False
    for file in manifest.files:
        path = place(folder, file.path)
        report(InstallProgress("verify", file.path, done_bytes, total_bytes))
        before = dict(stamps)
        if not models.is_right(folder, file, stamps):
            fetched = True

            def tell(part_bytes: int, name: str = file.path, base: int = done_bytes) -> None:
                report(InstallProgress("download", name, base + part_bytes, total_bytes))

            fetch_file(file, path, tell)
            found = path.stat()
            stamps[file.path] = models.FileStamp(found.st_size, found.st_mtime_ns, file.sha256)
        if stamps != before:  # after each file: an install that was cut off keeps what it has
            models.write_stamps(folder, stamps)
        done_bytes += path.stat().st_size
    return fetched


def _proof(
    known: models.WorkerConfig | None, manifest: ModelManifest, device: str
) -> models.Canary | None:
    """The canary of an earlier install, when it still says something."""
    for installed in known.models if known else ():
        same = installed.manifest.fingerprint == manifest.fingerprint
        if same and installed.canary.device == device:
            return installed.canary
    return None


def _draw_canary(folder: Path, manifest: ModelManifest, device_name: str) -> DrawnImage:
    """Draws the manifest's canary with the real engine and looks at it."""
    from sdq.worker.devices import choose
    from sdq.worker.pipelines import load
    from sdq.worker.stepping import engine_pipeline

    device = choose(device_name)
    holding = Holding(
        manifest.model_id, lambda: engine_pipeline(load(folder, manifest, device), device)
    )
    engine = Engine([holding])
    engine.start()
    try:
        engine.wait_ready()
        drawn = engine.submit(
            canary_spec(manifest), on_step=lambda step, steps: None, is_cancelled=lambda: False
        ).result()
    except GenerationFailed as error:
        raise _unfit(manifest, device.describe(), error.message) from error
    except SdqError:
        raise
    except Exception as error:  # whatever stops the proof, it is said in words
        reason = f"{type(error).__name__}: {error}"
        raise _unfit(manifest, device.describe(), reason) from error
    finally:
        engine.close()
    if fault := canary.fault_of(drawn.image, canary_spec(manifest)):
        raise _unfit(manifest, device.describe(), fault)
    return drawn


def _unfit(manifest: ModelManifest, device: str, reason: str) -> ModelError:
    return ModelError(
        f"{manifest.model_id} was fetched, but its proof picture failed on {device}: {reason}",
        hint="the worker was not set up; try another device with --device cpu",
    )


def _new_worker_id() -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", platform.node() or "worker")[:80]
    return f"{host}-{secrets.token_hex(4)}"
