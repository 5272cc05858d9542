"""What a worker draws with in this run: each installed model whose files are right."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sdq.broker import HeldModel
from sdq.config import Home, WorkerSettings
from sdq.errors import ModelError
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.spec import Lora
from sdq.worker import models
from sdq.worker.budget import budget_bytes
from sdq.worker.devices import capacity_of, choose
from sdq.worker.flight import Drawer, Pipeline
from sdq.worker.holding import Holding
from sdq.worker.lora_store import lora_path
from sdq.worker.memory import free_bytes
from sdq.worker.models import InstalledModel
from sdq.worker.profile import DrawOptions, Plan, options_of, plan_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Supply:
    """Models, the one to be loaded first before the others, and where they are drawn with.

    ``at_once``: the most pictures that one of them draws together. ``budget_bytes``: memory for
    all of them; 0: no limit. ``faulty``: installed models that are not among them, and why.
    """

    manifests: Sequence[ModelManifest]
    holdings: Sequence[Holding]
    device: str
    at_once: int = 1
    budget_bytes: int = 0
    faulty: Mapping[str, str] = field(default_factory=dict)
    device_name: str = ""  # as torch calls it; empty: no device that has memory to speak of

    @property
    def held(self) -> tuple[HeldModel, ...]:
        """As a heartbeat names them."""
        return tuple(HeldModel(one.model_id, one.fingerprint) for one in self.manifests)

    def memory_free_bytes(self) -> int | None:
        """What the device has left now; ``None``: nobody can say. Never raises."""
        if not self.device_name:
            return None
        try:
            return free_bytes(self.device_name)
        except Exception as error:  # noqa: BLE001 - a heartbeat goes on whatever a driver says
            _log.debug("the memory of %s: %s", self.device_name, error)
            return None

    @property
    def names(self) -> str:
        """Their ids, for people."""
        return ", ".join(manifest.model_id for manifest in self.manifests)


def supply_of(home: Home, installed: Sequence[InstalledModel], settings: WorkerSettings) -> Supply:
    """Checks the files and decides how each model is drawn with; loads nothing yet.

    Imports torch (seconds). Raises `ModelError` when no model's files are right, `UsageError`
    when the device is not there.
    """
    folders, faulty = _folders(home, installed)
    options = options_of(settings)
    device = choose(options.device, options.dtype)
    sound = [one for one in installed if one.manifest.model_id in folders]
    plans = [plan_of(one.profile, options, device) for one in sound]
    _say_unmeasured(sound, plans, options)
    find = partial(lora_path, home.loras_dir)
    return Supply(
        manifests=[one.manifest for one in sound],
        holdings=[
            _holding(one.manifest, folders[one.manifest.model_id], plan, find)
            for one, plan in zip(sound, plans, strict=True)
        ],
        device=device.describe(),
        at_once=max((plan.capacity or capacity_of(plan.device)).pictures for plan in plans),
        budget_bytes=budget_bytes(device, settings.memory_budget_bytes) if len(sound) > 1 else 0,
        faulty=faulty,
        device_name=device.name,
    )


def _folders(
    home: Home, installed: Sequence[InstalledModel]
) -> tuple[dict[str, Path], dict[str, str]]:
    """By model: where it lies, or why it is not drawn with."""
    folders: dict[str, Path] = {}
    errors: dict[str, ModelError] = {}
    for one in installed:
        try:
            folders[one.manifest.model_id] = models.check_files(home, one.manifest)
        except ModelError as error:
            errors[one.manifest.model_id] = error
    if not folders:
        raise next(iter(errors.values()))
    for found in errors.values():
        _log.error("%s; %s. The other models are drawn with", found.message, found.hint)
    return folders, {model_id: found.message for model_id, found in errors.items()}


def _holding(
    manifest: ModelManifest, folder: Path, plan: Plan, find: Callable[[Lora], Path]
) -> Holding:
    def load() -> Pipeline | Drawer:
        from sdq.worker import pipelines, stepping

        _log.info("loading %s in %s", manifest.model_id, plan.device.dtype)
        pipeline = pipelines.load(
            folder, manifest, plan.device, offload=plan.offload, compile=plan.compile
        )
        return stepping.engine_pipeline(pipeline, plan.device, plan.capacity, find)

    def release() -> None:
        from sdq.worker import pipelines

        pipelines.empty_cache(plan.device.name)

    return Holding(
        manifest.model_id,
        load,
        canary_spec(manifest),
        plan.needs_bytes,
        release,
        manifest.golden,
    )


def _say_unmeasured(
    sound: Sequence[InstalledModel], plans: Sequence[Plan], options: DrawOptions
) -> None:
    names = [
        one.manifest.model_id
        for one, plan in zip(sound, plans, strict=True)
        if not plan.is_measured
    ]
    if names:
        _log.warning(
            "%s: measured on another device or with other options; `sdq worker install` with "
            "these would measure anew, until then usual values count",
            ", ".join(names),
        )
