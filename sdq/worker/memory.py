"""How much memory there is, how much weights take, and how much was in use at most.

A device's memory; for the CPU the computer's, or what the container it runs in may take of it.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
import psutil

from sdq.protocol.model import ModelManifest
from sdq.worker.tensor_files import shapes_of

GIB = 1024**3

WORK_BYTES = 3 * GIB // 2
"""Beside the weights, for drawing itself. Pictures that need more are decoded in tiles, or fewer
of them are drawn at once."""

Resting = Literal["none", "model", "sequential"]
"""`sdq.worker.profile.Offload` once it is decided."""

_ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_SINGLE_FILE_PARTS = ("model.diffusion_model.", "first_stage_model.", "conditioner.embedders.1.")
_PROCESS = Path("/proc/self")
_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FILES = (  # second version, first version; files that are only cached can be let go
    (_CGROUP, "memory.max", "memory.current", "inactive_file"),
    (
        _CGROUP / "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


class Weights(msgspec.Struct, frozen=True):
    """What a model's numbers take, of all its parts and of the largest of them."""

    total_bytes: int
    largest_part_bytes: int


def offload_for(
    weights_bytes_total: int, largest_part_bytes: int, free_bytes: int | None
) -> Resting:
    """Where weights may rest on a device with so much free memory.

    On the device (``none``) when all of them and `WORK_BYTES` fit, part by part (``model``)
    when the largest one and `WORK_BYTES` do, else layer by layer (``sequential``). Where nobody
    can say how much is free, on the device: it says so itself when it is full.
    """
    if free_bytes is None or weights_bytes_total + WORK_BYTES <= free_bytes:
        return "none"
    if largest_part_bytes + WORK_BYTES <= free_bytes:
        return "model"
    return "sequential"


def free_bytes(device_name: str) -> int | None:
    """What the device has left for us; ``None`` where nobody can say.

    What torch keeps for later without using it counts as free.
    """
    import torch

    kind = device_name.partition(":")[0]
    if kind == "cpu":
        return _free_of_computer()
    if kind == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    module = getattr(torch, kind)
    try:
        free: int = module.mem_get_info(device_name)[0]
    except (RuntimeError, AttributeError):  # some of Intel's do not tell
        return None
    kept = module.memory_reserved(device_name) - module.memory_allocated(device_name)
    return free + int(kept)


def weights_bytes(pipeline: Any) -> int:
    """Of all parts of a loaded pipeline, wherever they rest."""
    return measured(pipeline).total_bytes


def measured(pipeline: Any) -> Weights:
    """The same, and of the largest part."""
    import torch

    parts = pipeline.components.values()
    sizes = [size_of(part) for part in parts if isinstance(part, torch.nn.Module)]
    return Weights(sum(sizes), max(sizes, default=0))


def size_of(part: Any) -> int:
    """Bytes of the weights of one part, a torch module, wherever they rest."""
    return sum(
        tensor.numel() * tensor.element_size()
        for tensors in (part.parameters(), part.buffers())
        for tensor in tensors
    )


def expected(folder: Path, manifest: ModelManifest, dtype: str) -> Weights:
    """What the model will take once it is loaded, from the headers of its files.

    Raises `ModelError` and `OSError` when they cannot be read.
    """
    # Not as the manifest names them: it may name an archive that they came out of.
    found = sorted(folder.rglob("*.safetensors"))
    names = [path.relative_to(folder).as_posix() for path in found]
    is_one_file = len(names) == 1 and manifest.kind != "folder"
    if any(name.endswith(".fp16.safetensors") for name in names):  # as `pipelines.load` takes them
        halves = {name.partition("/")[0] for name in names if name.endswith(".fp16.safetensors")}
        names = [
            name
            for name in names
            if name.endswith(".fp16.safetensors") or name.partition("/")[0] not in halves
        ]
    parts: dict[str, int] = {}
    for name in names:
        for tensor, shape in shapes_of(folder / name).items():
            part = _part_of(tensor) if is_one_file else name.partition("/")[0]
            parts[part] = parts.get(part, 0) + math.prod(shape) * _ITEM_BYTES[dtype]
    return Weights(sum(parts.values()), max(parts.values(), default=0))


def _part_of(tensor: str) -> str:
    return next((part for part in _SINGLE_FILE_PARTS if tensor.startswith(part)), "")


_FULL_WORDS = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""How torch and the libraries below it say that a device is full where there is no class for it."""


@contextlib.contextmanager
def memory_errors(device_name: str) -> Iterator[None]:
    """A full device, however torch says so, becomes a `MemoryError` with its cache emptied."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        empty_cache(device_name)
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _FULL_WORDS):
            empty_cache(device_name)
            raise MemoryError(str(error)) from error
        raise


def empty_cache(device_name: str) -> None:
    """Gives memory that torch keeps for later back to the device."""
    import torch

    module = getattr(torch, device_name.partition(":")[0], None)
    if module is not None and hasattr(module, "empty_cache"):
        with contextlib.suppress(RuntimeError):
            module.empty_cache()


class Peak:
    """Memory in use at most while it is open, for one at a time in a process::

        with Peak(device.name) as peak:
            draw()
        peak.growth_bytes

    Cheap: the devices count themselves, and Linux does for processes.
    """

    def __init__(self, device_name: str) -> None:
        self._device_name = device_name
        self._before: int | None = None
        self.peak_bytes: int | None = None
        """All that was in use, by torch on an accelerator, by the process on the CPU. ``None``
        where nobody can say: on a CPU outside Linux, on Apple's devices."""
        self.growth_bytes: int | None = None
        """How much more than at the beginning. Of a process too little where it works with what
        it had taken before and kept."""

    def __enter__(self) -> "Peak":
        self._before = _begin_count(self._device_name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            self.peak_bytes = _counted(self._device_name)
            self.growth_bytes = max(0, self.peak_bytes - self._before)


def _begin_count(device_name: str) -> int | None:
    """What is in use now, with the count of the most set back to it."""
    import torch

    kind = device_name.partition(":")[0]
    if kind == "cpu":
        with contextlib.suppress(OSError):
            _PROCESS.joinpath("clear_refs").write_text("5")  # proc(5): resets the peak
            return _counted(device_name)
        return None
    module = getattr(torch, kind)
    if not hasattr(module, "reset_peak_memory_stats"):
        return None
    module.reset_peak_memory_stats(device_name)
    return int(module.memory_allocated(device_name))


def _counted(device_name: str) -> int:
    import torch

    if device_name != "cpu":
        return int(getattr(torch, device_name.partition(":")[0]).max_memory_allocated(device_name))
    status = _PROCESS.joinpath("status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _free_of_computer() -> int:
    """What is available to this process without swapping; a container's limit counts."""
    free: int = psutil.virtual_memory().available
    for folder, limit, used, idle in _CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max" stands for no limit
            held = int((folder / used).read_text()) - _stat(folder / "memory.stat", idle)
            free = min(free, max(0, int((folder / limit).read_text()) - held))
    return free


def _stat(file: Path, name: str) -> int:
    """A number in a table of lines of two words; 0 when it is not there."""
    found = dict(line.split() for line in file.read_text().splitlines())
    return int(found.get(name, 0))
