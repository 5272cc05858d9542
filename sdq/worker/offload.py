"""Where the parts of a pipeline rest while they are not needed, with accelerate's hooks.

``none``: all on the device. ``model``: each whole part comes to the device when it is called.
``sequential``: each layer does, and leaves again; the slowest, for the smallest devices.
"""

from pathlib import Path
from typing import Any

from sdq.protocol.model import ModelManifest
from sdq.worker.devices import Device
from sdq.worker.memory import Resting, expected, free_bytes, offload_for
from sdq.worker.profile import Offload


def decide(asked: Offload, folder: Path, manifest: ModelManifest, device: Device) -> Resting:
    """What becomes of ``auto``: by the weights as they will be loaded and what is free now.

    On the CPU nothing is offloaded: the weights would rest where they are. Raises `OSError` and
    `ValueError` when the model's files cannot be read.
    """
    if asked != "auto":
        return asked
    if device.name == "cpu":
        return "none"
    weights = expected(folder, manifest, device.dtype)
    return offload_for(weights.total_bytes, weights.largest_part_bytes, free_bytes(device.name))


def place(pipeline: Any, device: Device, resting: Resting) -> Any:
    """Puts a pipeline that was loaded on the CPU where it belongs."""
    if resting == "model":
        pipeline.enable_model_cpu_offload(device=device.name)
    elif resting == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device.name)
    else:
        pipeline.to(device.name)
    return pipeline
