"""Loading a diffusers pipeline from files that are already here, quietly and offline."""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdq.errors import ModelError
from sdq.protocol.model import ModelManifest
from sdq.worker import offload as offloading
from sdq.worker.devices import Device
from sdq.worker.layouts.families import layout_of
from sdq.worker.layouts.folder import INDEX, PIPELINES, turbo_scheduler, write_configuration
from sdq.worker.memory import Resting
from sdq.worker.memory import empty_cache as empty_cache
from sdq.worker.memory import memory_errors as memory_errors
from sdq.worker.profile import Offload

STEPPED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""diffusers' classes whose ``__call__`` is known here step by step."""

_log = logging.getLogger(__name__)

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "lcm": ("LCMScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Our names: (diffusers' class, what differs from the model's own configuration)."""


def load(
    folder: Path,
    manifest: ModelManifest,
    device: Device,
    *,
    offload: Offload = "none",
    compile: bool = False,
) -> Any:
    """The model's pipeline on its device: safetensors only, nothing from the network.

    ``offload``: see `sdq.worker.offload`; ``auto`` decides by the memory that is free now.
    ``compile``: the UNet, which takes a while; where that fails it stays as it is, with a
    warning. Raises `ModelError` when the files do not make a pipeline or do not fit into memory.
    """
    silence()
    try:
        with memory_errors(device.name):
            pipeline = _read(folder, manifest, device)
            resting = offloading.decide(offload, folder, manifest, device)
            if not compile or not can_be_compiled(pipeline, resting):
                return offloading.place(pipeline, device, resting)
            from sdq.worker import compiling

            compiled = compiling.prepare(pipeline)
            offloading.place(pipeline, device, resting)
            compiling.learn(compiled, pipeline, device, manifest)
            return pipeline
    except MemoryError as error:
        raise ModelError(
            f"{manifest.model_id} does not fit into the memory of {device.describe()}",
            hint="stop what else uses the device, or choose another one with --device",
        ) from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
        raise _load_error(manifest, folder, error) from error


def silence() -> None:
    """Switches off what the libraries print, by their own switches, before they load.

    transformers warns at import for each image processor that lacks torchvision.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's library at its import
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new scheduler object. They keep state, so each picture in flight has its own.

    ``config``: the configuration of the scheduler that the model came with.
    """
    import diffusers

    class_name, differences = SCHEDULERS[name]
    made = getattr(diffusers, class_name)
    return (_steady(made) if name == "lcm" else made).from_config(config, **differences)


def _steady(lcm: Any) -> Any:
    """The LCM scheduler, whatever torch's default dtype is at the moment.

    It multiplies the timestep, a whole number, by ten: the result is of the default dtype, which
    another model that is being loaded changes for all threads. In float16 its square overflows,
    and the picture is nothing but zeros.
    """

    def scalings(self: Any, timestep: Any) -> Any:
        return lcm.get_scalings_for_boundary_condition_discrete(self, timestep.float())

    return type(lcm.__name__, (lcm,), {"get_scalings_for_boundary_condition_discrete": scalings})


def set_scheduler(pipeline: Any, name: str, config: Mapping[str, Any] | None = None) -> None:
    """Puts a new scheduler into the pipeline; without ``config`` from the one that it has."""
    pipeline.scheduler = make_scheduler(name, config or pipeline.scheduler.config)


def _read(folder: Path, manifest: ModelManifest, device: Device) -> Any:
    """The pipeline in the computer's memory."""
    import torch

    options = {
        "dtype": getattr(torch, device.dtype),
        "local_files_only": True,
        "use_safetensors": True,
    }
    before = torch.get_default_dtype()
    try:
        if manifest.kind == "folder" or (folder / INDEX).exists():
            pipeline = _from_folder(folder, options)
        else:
            pipeline = _from_single_file(folder, manifest, options)
    finally:
        torch.set_default_dtype(before)  # diffusers leaves its own when it fails in the midst
    pipeline.set_progress_bar_config(disable=True)
    return channels_last(pipeline, device)  # before layers are taken off, their form stays


def _from_folder(folder: Path, options: dict[str, Any]) -> Any:
    from diffusers import DiffusionPipeline

    if any(folder.rglob("*.fp16.safetensors")):
        options["variant"] = "fp16"
    return DiffusionPipeline.from_pretrained(str(folder), **options)


def _from_single_file(folder: Path, manifest: ModelManifest, options: dict[str, Any]) -> Any:
    """A checkpoint with weights only: its configuration is written beside it for the moment."""
    import diffusers

    weights = sorted(folder.rglob("*.safetensors"))
    if len(weights) != 1:
        raise ModelError(
            f"{manifest.model_id} should be one .safetensors file, it has {len(weights)}",
            hint="mend its entry in the server's catalog",
        )
    layout = layout_of(weights[0])
    with tempfile.TemporaryDirectory(prefix="sdq-layout-") as beside:
        scheduler = turbo_scheduler() if manifest.is_distilled else None
        write_configuration(layout, Path(beside), scheduler=scheduler)
        made = getattr(diffusers, PIPELINES[layout])
        return made.from_single_file(str(weights[0]), config=beside, **options)


def is_stepped(pipeline: Any) -> bool:
    """Whether this pipeline, as it is loaded, can be stepped from outside.

    Not a class that is derived from a known one: its ``__call__`` may do other things. Not a
    UNet that wants more than a prompt: pictures to begin with, or an adapter's.
    """
    if type(pipeline).__name__ not in STEPPED:
        return False
    config = pipeline.unet.config
    return config.in_channels == config.out_channels and config.encoder_hid_dim_type is None


def can_be_compiled(pipeline: Any, resting: Resting) -> bool:
    """Says why not, in the log."""
    reason = ""
    if resting == "sequential":
        reason = "its layers come to the device one by one"
    elif not is_stepped(pipeline):
        reason = "this kind of model draws by its own call"
    if reason:
        _log.warning("the UNet is used without compiling: %s", reason)
    return not reason


def channels_last(pipeline: Any, device: Device) -> Any:
    """Convolutions are faster with a pixel's channels side by side, on CPU and GPU alike.

    Not so on Apple's, where torch only copies to and fro.
    """
    import torch

    if device.name.startswith("mps"):
        return pipeline
    for name in ("unet", "vae"):
        module = getattr(pipeline, name, None)
        if module is not None:
            module.to(memory_format=torch.channels_last)
    return pipeline


def _load_error(manifest: ModelManifest, folder: Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    hint = "`sdq worker install` fetches the files again"
    return ModelError(f"{manifest.model_id} in {folder} cannot be loaded: {reason}", hint=hint)
