"""How much of a device's memory the models of a worker may take together."""

from sdq.worker import memory
from sdq.worker.devices import Device

SHARE = 0.9
"""Of what is free on an accelerator. The rest is for larger pictures and for what torch keeps."""

CPU_SHARE = 0.8
"""Of what is available of the computer's memory: others live there, and one that takes too much
is not refused but killed."""


def budget_bytes(device: Device, chosen_bytes: int = 0) -> int:
    """``chosen_bytes``, or when that is 0 nearly all that is free now; 0 when nobody can say.

    Ask before the first model is loaded: what is in use then is not ours.
    """
    if chosen_bytes:
        return chosen_bytes
    free = memory.free_bytes(device.name)
    if free is None:
        return 0
    return int(free * (CPU_SHARE if device.name == "cpu" else SHARE))
