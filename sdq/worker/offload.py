"""Where the parts of a pipeline rest while they are not needed, with accelerate's hooks.

``none``: all on the device. ``model``: each whole part comes to the device when it is called.
``sequential``: each layer does, and leaves again; the slowest, for the smallest devices.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdq.protocol.model import ModelManifest
from sdq.worker import memory
from sdq.worker.devices import Device
from sdq.worker.memory import Resting
from sdq.worker.profile import Offload

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def decide(asked: Offload, folder: Path, manifest: ModelManifest, device: Device) -> Resting:
    """What becomes of it there. ``auto``: by the weights as they will be loaded and what is free.

    On the CPU nothing is offloaded, whatever is asked: the weights would rest where they are.
    Raises `ModelError` and `OSError` when the model's files cannot be read.
    """
    if device.name == "cpu":
        return "none"
    if asked != "auto":
        return asked
    weights = memory.expected(folder, manifest, device.dtype)
    free = memory.free_bytes(device.name)
    return memory.offload_for(weights.total_bytes, weights.largest_part_bytes, free)


def place(pipeline: Any, device: Device, resting: Resting) -> Any:
    """Puts a pipeline that was loaded into the computer's memory where it belongs."""
    if resting == "model":
        pipeline.enable_model_cpu_offload(device=device.name)
    elif resting == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device.name)
    else:
        pipeline.to(device.name)
    return pipeline


@contextlib.contextmanager
def without_hooks(pipeline: Any, device: Device) -> Iterator[bool]:
    """For who changes its parts: hooks off, then on again as they were; gives whether there are
    any. After that `Parts` of this pipeline must be made anew. Takes moments for ``sequential``.
    """
    resting = _resting(pipeline)
    if resting == "none":
        yield False
        return
    pipeline.remove_all_hooks()
    try:
        yield True
    finally:
        place(pipeline, device, resting)


def _resting(pipeline: Any) -> Resting:
    """As its hooks say."""
    from accelerate.hooks import CpuOffload

    hooks = [getattr(part, "_hf_hook", None) for part in pipeline.components.values()]
    if not any(hooks):
        return "none"
    return "model" if any(isinstance(hook, CpuOffload) for hook in hooks) else "sequential"


class Parts:
    """The parts of a pipeline under ``model``, for who calls them in an order of his own. Does
    nothing for a pipeline that rests otherwise.

    diffusers chains its parts in the order in which a single picture needs them: the UNet leaves
    for the VAE whether or not there is room, and nobody leaves for the text encoder. Here one
    leaves when there is no room, the one that was idle longest. The hooks stay, without their
    chain: a part that is called without being asked for here comes to the device all the same.
    """

    def __init__(self, pipeline: Any, device: Device) -> None:
        self._device_name = device.name
        self._parts = _offloaded(pipeline)  # the one used last at the end
        if self._parts:
            from accelerate import cpu_offload_with_hook

            # As the hooks compare it with where the weights are: with its number.
            place = next(iter(self._parts.values()))._hf_hook.execution_device
            pipeline.remove_all_hooks()
            for part in self._parts.values():
                cpu_offload_with_hook(part, place)

    def need(self, *names: str) -> None:
        """Brings these to the device; others leave when there is no room for them.

        Raises torch's error when there is none even so; no part is there by half then.
        """
        for name in names if self._parts else ():
            part = self._parts.pop(name, None)
            if part is not None:
                self._parts[name] = part
                if not _is_away(part):
                    continue
                self._make_room(memory.size_of(part), kept=names)
                self._bring(part, kept=names)

    def leave_but(self, *kept: str) -> bool:
        """Sends all others away; whether one was there."""
        leaving = self._there(kept)
        for name in leaving:
            self._send_away(name)
        return bool(leaving)

    def _make_room(self, size_bytes: int, kept: Sequence[str]) -> None:
        for name in self._there(kept):
            free = memory.free_bytes(self._device_name)
            if free is not None and size_bytes + memory.WORK_BYTES <= free:
                return
            self._send_away(name)

    def _bring(self, part: Any, kept: Sequence[str]) -> None:
        try:
            part.to(self._device_name)
        except Exception:  # a full device; raised again when there is nobody left to leave
            part.to("cpu")
            if not self.leave_but(*kept):
                raise
        else:
            return
        self._bring(part, kept)

    def _there(self, kept: Sequence[str]) -> list[str]:
        """The others that are on the device, the one that was idle longest first."""
        return [
            name for name, part in self._parts.items() if name not in kept and not _is_away(part)
        ]

    def _send_away(self, name: str) -> None:
        self._parts[name].to("cpu")
        memory.empty_cache(self._device_name)


def _offloaded(pipeline: Any) -> dict[str, Any]:
    """The parts that diffusers has put under ``model``."""
    from accelerate.hooks import CpuOffload

    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(getattr(part, "_hf_hook", None), CpuOffload)  # where accelerate keeps it
    }


def _is_away(part: Any) -> bool:
    return str(part.device) == "cpu"
