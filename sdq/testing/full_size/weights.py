"""Random weights straight into a safetensors file, one tensor at a time.

So 5 GB of UNet are written with the memory of its largest tensor. A weight's numbers depend on
the seed and on its name alone, not on the file that it lies in nor on what was written before.
"""

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy

Dtype = Literal["float16", "bfloat16", "float32"]
_STORED: dict[Dtype, tuple[str, int]] = {
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float32": ("F32", 4),
}
"""safetensors' name, and bytes of a number."""

EMBEDDING_BOUND = 0.02 * math.sqrt(3)
"""A standard deviation of 0.02, as CLIP's embeddings begin with."""

Numbers = Any  # numpy.ndarray of float32


@dataclass(frozen=True)
class Weight:
    """One tensor of a module. Uniform between ``middle - bound`` and ``middle + bound``."""

    name: str
    shape: tuple[int, ...]
    middle: float
    bound: float

    def numbers(self, part: str, seed: int) -> Numbers:
        if not self.bound:
            return numpy.full(self.shape, self.middle, numpy.float32)
        name = zlib.crc32(f"{part}/{self.name}".encode())
        source = numpy.random.Generator(numpy.random.PCG64([seed, name]))
        made = source.random(self.shape, numpy.float32)
        made *= 2 * self.bound
        made += self.middle - self.bound
        return made


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: ``make`` gives its numbers in float32 when its turn comes."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Numbers]


def weights_of(module: Any) -> Iterator[Weight]:
    """All weights of a module, which may be on ``meta``, in their order.

    As torch begins a layer: a linear or convolution within 1 / √inputs, so that what goes
    through keeps its size and stays finite in half precision; a norm with one and zero.
    """
    for prefix, owner in module.named_modules():
        own = dict(owner.named_parameters(recurse=False))
        for name, parameter in own.items():
            middle, bound = _range(owner, name, own)
            yield Weight(f"{prefix}.{name}".lstrip("."), tuple(parameter.shape), middle, bound)


def _range(owner: Any, name: str, own: dict[str, Any]) -> tuple[float, float]:
    kind = type(owner).__name__
    if "Norm" in kind:
        return (1.0 if name == "weight" else 0.0), 0.0
    if kind == "Embedding":
        return 0.0, EMBEDDING_BOUND
    inputs = math.prod(own["weight"].shape[1:])
    return 0.0, 1 / math.sqrt(inputs)


def write(path: Path, entries: Iterable[Entry], dtype: Dtype) -> int:
    """Writes a safetensors file, whole or not at all; how many bytes it has.

    8 bytes of length, the header as JSON, then the tensors in its order, little endian:
    https://huggingface.co/docs/safetensors/index#format. Raises `OSError`.
    """
    ordered = list(entries)
    head = _head(ordered, dtype)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for entry in ordered:
            file.write(_stored(entry, dtype))
        written = file.tell()
    part.replace(path)
    return written


def _head(entries: Sequence[Entry], dtype: Dtype) -> bytes:
    name, width = _STORED[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        end = offset + width * math.prod(entry.shape)
        header[entry.name] = {
            "dtype": name,
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _stored(entry: Entry, dtype: Dtype) -> memoryview:
    import torch

    numbers = entry.make()
    if numbers.shape != entry.shape:
        raise ValueError(f"{entry.name} should be {entry.shape}, it is {numbers.shape}")
    tensor = torch.from_numpy(numpy.ascontiguousarray(numbers)).to(getattr(torch, dtype))
    return tensor.reshape(-1).view(torch.uint8).numpy().data
