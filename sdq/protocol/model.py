"""What the catalog says of a model, as it travels to clients and workers."""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from sdq.spec import FileHash, Guidance, ImageSpec, LoraWeight, Name, Side, Steps, derived_seed

# Patterns end in \Z: $ would let a line feed through.
Sha256 = FileHash

ModelId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=100)]
"""Becomes the name of a folder and of a queue, so no slash and no leading dot."""

_PATH_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
RelativePath = Annotated[
    str, msgspec.Meta(pattern=rf"^{_PATH_PART}(/{_PATH_PART})*\Z", max_length=255)
]
"""No part is empty or begins with a dot: it cannot leave the model's folder."""

NotNegative = Annotated[int, msgspec.Meta(ge=0)]

Golden = Annotated[str, msgspec.Meta(max_length=16_384)]
"""A small PNG in base64, empty when nobody has made one."""

Link = Annotated[str, msgspec.Meta(max_length=2_000)]

MAX_LORA_BYTES = 4 * 1024**3
"""Of a LoRA's file; the largest that people publish, for SDXL, have 2 GB."""

JobId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z]{1,40}\Z")]
WorkerId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,100}\Z")]
"""Both become parts of names in Redis."""


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model: where it goes below the model's folder, what it must be."""

    path: RelativePath
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None  # None: the publisher names no size
    sha256: Sha256
    links: tuple[Link, ...]  # tried in order


class ModelDefaults(msgspec.Struct, frozen=True):
    """What a picture gets where its draft is silent. Sizes in pixels."""

    width: Side
    height: Side
    num_inference_steps: Steps
    guidance_scale: Guidance
    scheduler: Name


class ModelLimits(msgspec.Struct, frozen=True):
    """What the model can draw at all. Sides in pixels, both ends included."""

    min_side: Side
    max_side: Side
    max_pixels: Annotated[int, msgspec.Meta(ge=1)]
    max_steps: Steps
    schedulers: tuple[Name, ...]


class ModelManifest(msgspec.Struct, frozen=True):
    """Everything that a worker needs to install a model."""

    model_id: ModelId
    title: str
    kind: Literal["folder", "single_file", "archive"]  # diffusers' layout; one checkpoint; packed
    license: str
    files: tuple[ModelFile, ...]
    defaults: ModelDefaults
    limits: ModelLimits
    canary_prompt: str
    fingerprint: Sha256
    memory_bytes: NotNegative | None = None  # what a device should have to draw with it
    is_distilled: bool = False  # made for a few steps: it begins at the noisiest timestep
    golden: Golden = ""  # the canary as it should look


class LoraManifest(msgspec.Struct, frozen=True):
    """Small weights that change what a model draws: one safetensors file."""

    lora_id: ModelId
    title: str
    license: str
    models: Annotated[tuple[ModelId, ...], msgspec.Meta(min_length=1, max_length=100)]
    """The models that it was made for."""
    file: ModelFile
    weight: LoraWeight = 1.0  # where a picture names none
    trigger: Annotated[str, msgspec.Meta(max_length=1_000)] = ""  # words that call for it


class ModelInfo(msgspec.Struct, frozen=True):
    """What a client is shown of a model."""

    model_id: ModelId
    title: str
    license: str
    defaults: ModelDefaults
    limits: ModelLimits
    fingerprint: Sha256
    size_bytes: int | None
    is_default: bool
    workers_online: int


def fingerprint_of(files: Iterable[ModelFile]) -> str:
    """SHA-256 over the sorted paths and hashes of all files: the model's identity."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{file.path} {file.sha256}\n".encode())
    return digest.hexdigest()


def canary_spec(manifest: ModelManifest) -> ImageSpec:
    """The picture that proves an installation: the model's defaults, a derived seed."""
    defaults = manifest.defaults
    spec = ImageSpec(
        prompt=manifest.canary_prompt,
        negative_prompt="",
        model=manifest.model_id,
        width=defaults.width,
        height=defaults.height,
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        scheduler=defaults.scheduler,
        seed=0,
    )
    return msgspec.structs.replace(spec, seed=derived_seed(spec, 0))
