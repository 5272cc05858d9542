"""What a picture file says of itself, for people and for scripts."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sdq import metadata
from sdq.cli.output import plain
from sdq.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_parsers.data import PromptInfo

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are no pictures that anybody means."""

_MAX_VALUE_CHARACTERS = 10_000
_OURS = "sdq"

_kept: "deque[Image]" = deque(maxlen=2)
"""sd-parsers takes a picture at the address of the one before for the same picture."""


def read_file(path: Path) -> bytes:
    """The bytes of a picture file. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}", hint="name a picture file"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path} is too large for a picture", hint="at most 256 MiB")
    return data


def provenance_of(path: Path) -> metadata.Provenance:
    """What drew a file of sdq's. Raises `UsageError`, also for other programs' pictures."""
    said = metadata.read(read_file(path))
    if said is None:
        raise UsageError(
            f"{path} does not say how sdq drew it",
            hint="it is another program's, or its texts were taken out; `sdq inspect` reads others",
        )
    return said


def description_of(path: Path) -> dict[str, Any]:
    """All that a file says, for ``--json``; the texts of other programs through sd-parsers.

    Raises `UsageError` when it is no picture or says nothing, `ModuleNotFoundError` when
    sd-parsers would be needed.
    """
    data = read_file(path)
    said = metadata.read(data)
    if said is not None:
        return {"file": str(path), "program": _OURS, **of_provenance(said)}
    return {"file": str(path), **_of_others(path, data)}


def of_provenance(said: metadata.Provenance) -> dict[str, Any]:
    """The spec, the key, and what drew it."""
    return dict(msgspec.to_builtins(said))


def _of_others(path: Path, data: bytes) -> dict[str, Any]:
    from sd_parsers import ParserManager  # an extra: whoever has no such files needs it not

    image = metadata.decoded(data)
    _kept.append(image)
    try:
        found = ParserManager().parse(image)
    except Exception as error:  # its parsers raise what they stumble on
        raise UsageError(f"{path}: its texts cannot be read: {error}") from error
    if found is None:
        raise UsageError(
            f"{path} does not say how it was drawn",
            hint="read are files of sdq, A1111, ComfyUI, InvokeAI, NovelAI and Fooocus",
        )
    return _of_prompt_info(found)


def _of_prompt_info(found: "PromptInfo") -> dict[str, Any]:
    samplers = [
        {
            "name": sampler.name,
            "model": str(sampler.model) if sampler.model else None,
            "model_hash": sampler.model.hash if sampler.model else None,
            "parameters": _simple(sampler.parameters),
        }
        for sampler in found.samplers
    ]
    return {
        "program": str(found.generator.value),
        "prompt": found.full_prompt,
        "negative_prompt": found.full_negative_prompt,
        "samplers": samplers,
        "metadata": _simple(found.metadata),
    }


def _simple(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Values as JSON has them; anything else as text."""
    return {
        str(name): value if isinstance(value, str | int | float | None) else str(value)
        for name, value in values.items()
    }


def lines_of(said: Mapping[str, Any]) -> list[str]:
    """A description for people: a name and a value on each line, harmless on a terminal."""
    pairs = pairs_of(said)
    width = max(len(name) for name, _ in pairs)
    return [
        f"{name + ':':<{width + 1}} {plain(str(value)[:_MAX_VALUE_CHARACTERS])}"
        for name, value in pairs
        if value not in ("", None)
    ]


def pairs_of(said: Mapping[str, Any]) -> list[tuple[str, object]]:
    """A description as names and values, in their order; some values may be empty."""
    return _ours(said) if said.get("program", _OURS) == _OURS else _others(said)


def _ours(said: Mapping[str, Any]) -> list[tuple[str, object]]:
    spec = said["spec"]
    return [
        ("file", said.get("file", "")),
        ("prompt", spec["prompt"]),
        ("negative", spec["negative_prompt"]),
        ("model", spec["model"]),
        ("size", f"{spec['width']}×{spec['height']}"),
        ("steps", spec["num_inference_steps"]),
        ("guidance", f"{spec['guidance_scale']:g}"),
        ("scheduler", spec["scheduler"]),
        ("seed", spec["seed"]),
        *[("lora", _lora_text(lora)) for lora in spec.get("loras", ())],
        ("key", said.get("key", "")),
        ("fingerprint", said.get("fingerprint", "")),
        ("device", said.get("device", "")),
        ("versions", _pairs(said.get("versions", {}))),
    ]


def _lora_text(lora: Mapping[str, Any]) -> str:
    return f"{lora['name']}:{lora['weight']:g} ({lora['sha256'][:10]})"


def _others(said: Mapping[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("file", said["file"]),
        ("program", said["program"]),
        ("prompt", said["prompt"]),
        ("negative", said["negative_prompt"]),
    ]
    for sampler in said["samplers"]:
        pairs += [("model", sampler["model"]), ("sampler", sampler["name"])]
        pairs.append(("parameters", _pairs(sampler["parameters"])))
    return [*pairs, ("other", _pairs(said["metadata"]))]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
