"""A look at a computer that draws, or is to: what is there, what is missing, what mends it."""

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sdq.config import Home, WorkerSettings
from sdq.errors import SdqError
from sdq.findings import Finding
from sdq.storage import nearest_there

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "celery", "redis")
PROBE_SECONDS = 10.0
LOW_DISK_BYTES = 10 * 1024**3
"""A model of the SDXL family takes 7 GB."""

LEAST_MEMORY_BYTES = 4 * 1024**3
_ROCM_INDEX = "https://download.pytorch.org/whl/rocm6.4"
_XPU_INDEX = "https://download.pytorch.org/whl/xpu"


class Gpu(NamedTuple):
    """A graphics processor as the system knows it, whatever torch thinks of it."""

    kind: str  # cuda, rocm, xpu, mps
    name: str
    driver: str = ""


def examine(home: Home, settings: WorkerSettings) -> Iterator[Finding]:
    """All that a worker needs, one finding after the other: some take seconds. Raises nothing."""
    yield from packages()
    gpus = find_gpus()
    yield from device(gpus, settings)
    yield memory()
    yield disk(home)
    yield from installation(home, settings)


# ---------------------------------------------------------------- software


def packages() -> Iterator[Finding]:
    """Their versions; what is missing, with the command that brings it."""
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if found:
        yield Finding("packages", "ok", ", ".join(found))
    if missing:
        text = f"missing: {', '.join(missing)}"
        yield Finding("packages", "problem", text, "pip install 'sdq[worker]'")


# ---------------------------------------------------------------- the device


def find_gpus(ask: Callable[[list[str]], str] | None = None, root: Path = Path("/")) -> list[Gpu]:
    """What the system's own tools and device files say. ``ask`` runs a program."""
    run = ask or _output_of
    rows = run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    found = [
        Gpu("cuda", *(part.strip() for part in row.split(",", 1)))
        for row in rows.splitlines()
        if row.count(",") == 1
    ]
    if not found and (root / "proc/driver/nvidia/version").exists():
        found.append(Gpu("cuda", "an NVIDIA card"))
    if (root / "dev/kfd").exists():
        found.append(Gpu("rocm", "an AMD card"))
    if not found and _has_intel_card(root):
        found.append(Gpu("xpu", "an Intel card"))
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        found.append(Gpu("mps", f"Apple {platform.machine()}"))
    return found


def device(gpus: list[Gpu], settings: WorkerSettings, torch: Any = None) -> Iterator[Finding]:
    """What torch can draw on, against what is there. ``torch``: another one, for tests."""
    if torch is None:
        try:
            import torch
        except Exception as error:  # noqa: BLE001 - a broken build raises anything, and we say so
            yield Finding("device", "problem", f"torch cannot be imported: {error}", mend("", gpus))
            return
    from sdq.worker.devices import choose

    useful = {"cuda": "cuda", "rocm": "cuda", "xpu": "xpu", "mps": "mps"}
    for gpu in gpus:
        kind = useful[gpu.kind]
        module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
        if module is not None and module.is_available():
            driver = f", driver {gpu.driver}" if gpu.driver else ""
            yield Finding("GPU", "ok", f"{gpu.name}{driver}")
        else:
            text = f"{gpu.name} is there, but torch {torch.__version__} cannot use it"
            yield Finding("GPU", "problem", text, mend(str(torch.__version__), [gpu]))
    if not gpus:
        yield Finding("GPU", "note", "none found: drawing on the CPU works, slowly")
    try:
        chosen = choose(settings.device, settings.dtype)
    except SdqError as error:
        yield Finding("device", "problem", error.message, error.hint)
    else:
        yield Finding("device", "ok", f"{settings.device} is {chosen.describe()}, {chosen.dtype}")


def mend(version: str, gpus: list[Gpu]) -> str:
    """The command that installs a torch for these cards. PyPI's build for Linux is NVIDIA's."""
    bare = version.partition("+")[0]
    wanted = f"torch=={bare}" if bare else "torch"
    command = f"python -m pip install --force-reinstall {wanted}"
    kind = gpus[0].kind if gpus else ""
    if kind == "rocm":
        return f"{command} --index-url {_ROCM_INDEX}"
    return f"{command} --index-url {_XPU_INDEX}" if kind == "xpu" else command


def _has_intel_card(root: Path) -> bool:
    for vendor in root.glob("sys/class/drm/card*/device/vendor"):
        try:
            if vendor.read_text().strip() == "0x8086":
                return True
        except OSError:
            continue
    return False


def _output_of(command: list[str]) -> str:
    """What a program prints; nothing when it is not there, fails, or takes too long."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


# ---------------------------------------------------------------- room


def memory() -> Finding:
    """The computer's memory."""
    from sdq.worker.memory import free_bytes

    free = free_bytes("cpu")
    if free is None:
        return Finding("memory", "note", "nobody can say how much is free")
    text = f"{free / 1e9:.1f} GB free"
    if free < LEAST_MEMORY_BYTES:
        text += "; stop what else runs before you load a large model"
        return Finding("memory", "note", text)
    return Finding("memory", "ok", text)


def disk(home: Home) -> Finding:
    """Room for models."""
    there = nearest_there(home.models_dir.absolute())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free for models in {home.models_dir}"
    if free < LOW_DISK_BYTES:
        return Finding("disk", "note", text, "export SDQ_HOME=/another/place")
    return Finding("disk", "ok", text)


# ---------------------------------------------------------------- what is installed


def installation(home: Home, settings: WorkerSettings) -> Iterator[Finding]:
    """Models, their files, and whether Redis can be reached with what the server told us."""
    from sdq.worker import canary, models
    from sdq.worker.need import short_of_memory

    try:
        config = models.load_config(home)
    except SdqError as error:
        yield Finding("models", "problem", error.message, "sdq worker install --server HOST")
        return
    for installed in config.models:
        manifest, profile = installed.manifest, installed.profile
        try:
            models.check_files(home, manifest)
        except SdqError as error:
            command = f"sdq worker install --model {manifest.model_id}"
            yield Finding(manifest.model_id, "problem", error.message, command)
        else:
            text = f"installed, measured on {profile.device_name} in {profile.dtype}"
            yield Finding(manifest.model_id, "ok", text)
            if note := short_of_memory(manifest, settings):
                yield Finding(manifest.model_id, "note", note)
    if canary.is_marked(home):
        text = "its last run ended because its proof picture failed"
        yield Finding("worker", "problem", text, "sdq worker install")
    yield reach_redis(config.redis_url)


def reach_redis(redis_url: str) -> Finding:
    """One ping. The address is shown, the password never."""
    import redis

    from sdq.worker.delivery import connect

    try:
        client = connect(redis_url)
        where = client.connection_pool.connection_kwargs
        address = where.get("path") or f"{where.get('host')}:{where.get('port')}"
        with client:
            client.ping()
    except (redis.RedisError, SdqError) as error:
        text = f"Redis cannot be reached: {error}"
        return Finding("Redis", "problem", text, "sdq worker install --server HOST")
    return Finding("Redis", "ok", f"answers at {address}")
