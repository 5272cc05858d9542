"""`ImageSpec`: everything a picture depends on, its canonical form, its key, its seed.

A picture is a pure function of its spec and of the weights that draw it. So the key of a
picture in the library is a hash of exactly that, and the seed that nobody chose is derived
from the rest of the spec: the same command gives the same picture anywhere, at any time.
"""

import hashlib
import json
import unicodedata
from typing import Annotated

import msgspec

KEY_VERSION = 1
"""Raised when the same spec would be drawn differently by a newer sdq."""

SEED_LIMIT = 2**32
"""Seeds are 32 bits wide, as in the other tools that read our files."""

MAX_PROMPT_CHARACTERS = 4_000
"""Protocol-wide ceiling; a server announces its own, smaller or equal, in ``Welcome``."""

MAX_SIDE_PIXELS = 4_096
MAX_STEPS = 500
MAX_GUIDANCE = 100.0
SIZE_MULTIPLE = 8
MAX_LORAS = 8
MAX_LORA_WEIGHT = 10.0

Prompt = Annotated[str, msgspec.Meta(max_length=MAX_PROMPT_CHARACTERS)]
Name = Annotated[str, msgspec.Meta(max_length=100)]
Side = Annotated[int, msgspec.Meta(ge=SIZE_MULTIPLE, le=MAX_SIDE_PIXELS)]
Steps = Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, msgspec.Meta(ge=0, le=MAX_GUIDANCE)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=SEED_LIMIT)]
LoraWeight = Annotated[float, msgspec.Meta(ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT)]
FileHash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class LoraChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A LoRA that a person asked for; without a weight it gets its own usual one."""

    name: Name
    weight: LoraWeight | None = None


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Small weights that are added to a model's, ``weight`` times. The file is what counts: its
    SHA-256 is part of the picture's key, its name is not."""

    name: Name
    sha256: FileHash
    weight: LoraWeight


class SpecDraft(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a person asked for: ``None`` means the model's default.

    Bounds are checked when a draft is decoded from the wire, not when it is constructed;
    the limits of one model are checked by the server's catalog.
    """

    prompt: Prompt
    negative_prompt: Prompt = ""
    model: Name | None = None
    width: Side | None = None
    height: Side | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Name | None = None
    seed: Seed | None = None
    loras: Annotated[tuple[LoraChoice, ...], msgspec.Meta(max_length=MAX_LORAS)] = ()


class ImageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One picture, completely: sizes in pixels, multiples of 8; seed below 2**32. ``loras`` are
    sorted by hash, each there once, none of weight 0."""

    prompt: Prompt
    negative_prompt: Prompt
    model: Name
    width: Side
    height: Side
    num_inference_steps: Steps
    guidance_scale: Guidance
    scheduler: Name
    seed: Seed
    loras: Annotated[tuple[Lora, ...], msgspec.Meta(max_length=MAX_LORAS)] = ()


def normalize_text(text: str) -> str:
    """NFC, line ends as ``\\n``, no white space around: texts that look alike are alike."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", unified).strip()


def canonical(spec: ImageSpec) -> bytes:
    """The spec as UTF-8 JSON with sorted names and no spaces; numbers in one form each."""
    fields = msgspec.structs.asdict(spec)
    fields["guidance_scale"] = float(spec.guidance_scale) + 0.0  # -0.0 becomes 0.0
    del fields["loras"]
    if spec.loras:  # without, the form is that of the time before there were any
        fields["loras"] = sorted([lora.sha256, float(lora.weight)] for lora in spec.loras)
    text = json.dumps(
        fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def key_of(spec: ImageSpec, fingerprint: str) -> str:
    """The picture's key in the library: 64 hexadecimal digits.

    ``fingerprint`` is the model's, a hash over all of its files: other weights under the
    same name give other keys.
    """
    digest = hashlib.sha256(canonical(spec))
    digest.update(f"\nmodel {fingerprint}\nkey {KEY_VERSION}".encode())
    return digest.hexdigest()


def derived_seed(spec: ImageSpec, index: int) -> int:
    """The seed of picture ``index`` (from 0) of a request that names none.

    It ignores ``spec.seed`` and does not depend on the model's files, so it stays when a
    model's weights are renewed.
    """
    unseeded = canonical(msgspec.structs.replace(spec, seed=0))
    digest = hashlib.sha256(unseeded + f"\nindex {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def seed_at(spec: ImageSpec, chosen: int | None, index: int) -> int:
    """The seed of picture ``index``: counted up from the chosen one, or derived."""
    if chosen is None:
        return derived_seed(spec, index)
    return (chosen + index) % SEED_LIMIT
