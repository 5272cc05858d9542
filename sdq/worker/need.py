"""Whether a device has the memory that a model should have: said in words, never an error.

What does not fit at once may still be drawn with slowly (`sdq.worker.offload`).
"""

from sdq.config import WorkerSettings
from sdq.errors import SdqError
from sdq.protocol.model import ModelManifest


def short_of_memory(manifest: ModelManifest, settings: WorkerSettings) -> str:
    """What to say of the device of these settings; empty when it has enough or nobody knows.

    Imports torch where the model names a need.
    """
    if not manifest.memory_bytes:
        return ""
    from sdq.worker.devices import choose
    from sdq.worker.memory import free_bytes

    try:
        device = choose(settings.device, settings.dtype)
    except SdqError:
        return ""  # whoever asked for it is told elsewhere
    needed = manifest.memory_bytes * (2 if device.dtype == "float32" else 1)
    free = free_bytes(device.name)
    if free is None or free >= needed:
        return ""
    return (
        f"{manifest.model_id} should have {needed / 1e9:.1f} GB of memory in {device.dtype}, "
        f"{device.describe()} has {free / 1e9:.1f} GB free: it may be slow or not fit"
    )
