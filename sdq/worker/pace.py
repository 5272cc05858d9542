"""Keeping Python near an accelerator that works on while Python is done."""

from typing import Any


class Pace:
    """At most one turn ahead: enough that the device never waits for Python, not so much that
    progress is told, and arrivals and cancels are seen, long before or after it is so."""

    def __init__(self, device_name: str) -> None:
        self._device_name = device_name
        self._last: Any = None

    def keep(self) -> None:
        """After a turn was handed to the device: waits for the end of the one before it."""
        event = _recorded(self._device_name)
        if self._last is not None:
            self._last.synchronize()
        self._last = event


def _recorded(device_name: str) -> Any:
    """A mark in the device's stream; ``None`` for devices that are done when Python is."""
    import torch

    kind = device_name.partition(":")[0]
    if kind == "cpu":
        return None
    if kind == "mps":
        event = torch.mps.event.Event()
        event.record()
        return event
    module = getattr(torch, kind)
    event = module.Event()
    event.record(module.current_stream(device_name))
    return event
