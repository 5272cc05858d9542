"""The form of a catalog file: TOML to manifests, every mistake named with its place."""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from sdq.errors import InvalidSpec, UsageError
from sdq.protocol.model import (
    MAX_LORA_BYTES,
    Golden,
    LoraManifest,
    ModelDefaults,
    ModelFile,
    ModelId,
    ModelLimits,
    ModelManifest,
    NotNegative,
    canary_spec,
    fingerprint_of,
)
from sdq.server.model_limits import check
from sdq.spec import LoraWeight, normalize_text

MAX_CATALOG_BYTES = 4 * 1024 * 1024


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[models.<id>]`` in the file."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    kind: Literal["folder", "single_file", "archive"]
    license: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    files: Annotated[tuple["_File", ...], msgspec.Meta(min_length=1, max_length=1_000)]
    defaults: ModelDefaults
    limits: ModelLimits
    canary_prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    memory_bytes: NotNegative | None = None
    is_distilled: bool = False
    golden: Golden = ""


class _File(ModelFile, frozen=True, forbid_unknown_fields=True, kw_only=True):
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None  # TOML has no null


class _Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[loras.<id>]`` in the file."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    license: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    models: Annotated[tuple[ModelId, ...], msgspec.Meta(min_length=1, max_length=100)]
    file: "_LoraFile"
    weight: LoraWeight = 1.0
    trigger: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class _LoraFile(ModelFile, frozen=True, forbid_unknown_fields=True, kw_only=True):
    # Workers fetch it while a job waits: bounded.
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_LORA_BYTES)]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default: str | None = None
    models: dict[str, dict[str, Any]] = {}
    loras: dict[str, dict[str, Any]] = {}


class CatalogFile(NamedTuple):
    """What a file says. ``default`` is not checked: its model may be in another file."""

    default: str | None
    manifests: dict[str, ModelManifest]
    loras: dict[str, LoraManifest]


def parse(text: str, where: str) -> CatalogFile:
    """A catalog. Raises `UsageError` naming ``where``, the entry and the field of a mistake."""
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{where}: {_plain(error)}",
            hint="docs/operations.md shows how a model is written down",
        ) from error
    manifests = {
        model_id: _manifest(model_id, table, f"{where}: model {model_id!r}")
        for model_id, table in document.models.items()
    }
    loras = {
        lora_id: _lora(lora_id, table, f"{where}: LoRA {lora_id!r}")
        for lora_id, table in document.loras.items()
    }
    return CatalogFile(document.default, manifests, loras)


def read(path: Path) -> str | None:
    """The text of an operator's file; ``None`` when there is none. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CATALOG_BYTES + 1)
        if len(data) > MAX_CATALOG_BYTES:
            raise UsageError(f"{path}: the catalog is over {MAX_CATALOG_BYTES} bytes")
        return data.decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path}: {error}", hint="mend the file or move it away"
        ) from error


def _manifest(model_id: str, table: dict[str, Any], where: str) -> ModelManifest:
    _check_id(model_id, f"{where}: the id of a model")
    try:
        model = msgspec.convert(table, _Model)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {_plain(error)}") from error
    files = tuple(ModelFile(f.path, f.size_bytes, f.sha256, f.links) for f in model.files)
    _check_files(files, where)
    manifest = ModelManifest(
        model_id=model_id,
        title=model.title,
        kind=model.kind,
        license=model.license,
        files=files,
        defaults=model.defaults,
        limits=model.limits,
        canary_prompt=normalize_text(model.canary_prompt),
        fingerprint=fingerprint_of(files),
        memory_bytes=model.memory_bytes,
        is_distilled=model.is_distilled,
        golden=model.golden,
    )
    _check_defaults(manifest, where)
    return manifest


def _lora(lora_id: str, table: dict[str, Any], where: str) -> LoraManifest:
    _check_id(lora_id, f"{where}: the id of a LoRA")
    try:
        lora = msgspec.convert(table, _Lora)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {_plain(error)}") from error
    file = ModelFile(lora.file.path, lora.file.size_bytes, lora.file.sha256, lora.file.links)
    if not file.path.endswith(".safetensors"):
        raise UsageError(
            f"{where}: file.path: {file.path!r} is no .safetensors file",
            hint="other forms of weights may hold programs; convert it where you trust it",
        )
    _check_links(file, f"{where}: file")
    if len(set(lora.models)) < len(lora.models):
        raise UsageError(f"{where}: models: one is there twice")
    if not math.isfinite(lora.weight):
        raise UsageError(f"{where}: weight: {lora.weight} is no number")
    return LoraManifest(
        lora_id=lora_id,
        title=lora.title,
        license=lora.license,
        models=lora.models,
        file=file,
        weight=lora.weight,
        trigger=normalize_text(lora.trigger),
    )


def _check_id(name: str, what: str) -> None:
    try:
        msgspec.convert(name, ModelId)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{what} is made of letters, digits, dots, dashes and underscores"
        ) from error


def _check_files(files: tuple[ModelFile, ...], where: str) -> None:
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            raise UsageError(f"{where}: files: {file.path!r} is there twice")
        _check_links(file, f"{where}: files")
        seen.add(file.path)


def _check_links(file: ModelFile, where: str) -> None:
    if not file.links:
        raise UsageError(f"{where}: {file.path!r} has no links")
    for link in file.links:
        if not link.partition(":")[0].isalnum() or ":" not in link:
            raise UsageError(
                f"{where}: link {link!r} has no scheme",
                hint="write https://…, hf://org/name@revision/file or file:///…",
            )


def _check_defaults(manifest: ModelManifest, where: str) -> None:
    """The defaults and the canary must be drawable, or nobody could use the model as it is."""
    try:
        check(canary_spec(manifest), manifest)
    except InvalidSpec as error:
        raise UsageError(
            f"{where}: defaults: {error.message}", hint="make defaults and limits agree"
        ) from error
    if not manifest.canary_prompt:
        raise UsageError(f"{where}: canary_prompt is empty")


def _plain(error: Exception) -> str:
    """msgspec's words without its path syntax: ``defaults.width: expected `int`, got `str```."""
    message, found, path = str(error).partition(" - at `$")
    message = message.replace("Expected `str` matching regex", "not of the form")
    if not found:
        return message
    return f"{path.rstrip('`').lstrip('.')}: {message[:1].lower()}{message[1:]}"
