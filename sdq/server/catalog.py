"""The catalog: which models there are, what they can draw, what a draft means for them.

It is read from the ``catalog.toml`` that sdq ships and from a file of the operator in the same
form, whose models are added, or replace those of the same id as a whole.
"""

import difflib
import tomllib
import unicodedata
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec

from sdq.errors import InvalidSpec, UnknownModel, UsageError
from sdq.protocol.model import (
    ModelDefaults,
    ModelFile,
    ModelLimits,
    ModelManifest,
    fingerprint_of,
)
from sdq.spec import (
    MAX_GUIDANCE,
    MAX_PROMPT_CHARACTERS,
    SEED_LIMIT,
    SIZE_MULTIPLE,
    ImageSpec,
    SpecDraft,
    normalize_text,
)

# The id is part of the name of a queue in Redis and of a folder of the worker.
ModelId = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9._-]*$", max_length=100)]

MAX_CATALOG_BYTES = 4 * 1024 * 1024


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[models.<id>]`` in the file."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    kind: Literal["folder", "single_file"]
    license: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    files: Annotated[tuple["_File", ...], msgspec.Meta(min_length=1, max_length=1_000)]
    defaults: ModelDefaults
    limits: ModelLimits
    canary_prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class _File(ModelFile, frozen=True, forbid_unknown_fields=True, kw_only=True):
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None  # TOML has no null


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default: str | None = None
    models: dict[str, dict[str, Any]] = {}


class Catalog:
    """Frozen once loaded; made by `Catalog.load`."""

    def __init__(
        self,
        manifests: dict[str, ModelManifest],
        default_model_id: str,
        max_prompt_characters: int,
    ) -> None:
        self.default_model_id = default_model_id
        self.max_prompt_characters = min(max_prompt_characters, MAX_PROMPT_CHARACTERS)
        self._manifests = manifests

    @classmethod
    def load(cls, extra: Path | None = None, *, max_prompt_characters: int = 2_000) -> "Catalog":
        """The shipped models and those of the file ``extra``, when there is such a file.

        Raises `UsageError` naming file, model and field of a mistake.
        """
        shipped = resources.files("sdq.server").joinpath("catalog.toml")
        document = _parse(shipped.read_text("utf-8"), "sdq's catalog.toml")
        manifests = _manifests(document, "sdq's catalog.toml")
        default, where = document.default, "sdq's catalog.toml"
        text = None if extra is None else _read(extra)
        if text is not None:
            document = _parse(text, str(extra))
            manifests |= _manifests(document, str(extra))
            if document.default is not None:
                default, where = document.default, str(extra)
        if default not in manifests:
            raise UsageError(
                f"{where}: default = {default!r} is not a model of the catalog",
                hint="its models are " + ", ".join(sorted(manifests)),
            )
        return cls(manifests, default, max_prompt_characters)

    def manifest(self, model_id: str | None) -> ModelManifest:
        """A model, the default one for ``None``. Raises `UnknownModel` with the nearest name."""
        found = self._manifests.get(self.default_model_id if model_id is None else model_id)
        if found is None:
            raise UnknownModel(
                f"there is no model {model_id!r}{_nearest(str(model_id), self._manifests)}",
                hint="known are " + ", ".join(sorted(self._manifests)),
            )
        return found

    def manifests(self) -> tuple[ModelManifest, ...]:
        """All models, sorted by id."""
        return tuple(self._manifests[model_id] for model_id in sorted(self._manifests))

    def resolve(self, draft: SpecDraft) -> ImageSpec:
        """The draft with the model's defaults where it is silent, checked against its limits.

        The seed is 0 where the draft names none. Raises `InvalidSpec` or `UnknownModel`. On the
        path of every quick hit: a few microseconds.
        """
        model = self._manifests.get(draft.model or "") or self.manifest(draft.model)
        prompt = normalize_text(draft.prompt)
        negative_prompt = normalize_text(draft.negative_prompt)
        limit = self.max_prompt_characters
        if not 0 < len(prompt) <= limit or len(negative_prompt) > limit:
            _refuse_prompt(prompt, negative_prompt, limit)
        defaults = model.defaults
        width = defaults.width if draft.width is None else draft.width
        height = defaults.height if draft.height is None else draft.height
        steps = draft.num_inference_steps
        guidance = draft.guidance_scale
        spec = ImageSpec(
            prompt,
            negative_prompt,
            model.model_id,
            width,
            height,
            defaults.num_inference_steps if steps is None else steps,
            # + 0.0: minus zero is zero, and must give the same key.
            float(defaults.guidance_scale if guidance is None else guidance) + 0.0,
            draft.scheduler or defaults.scheduler,
            draft.seed or 0,
        )
        _check(spec, model)
        return spec


def _check(spec: ImageSpec, model: ModelManifest) -> None:
    limits = model.limits
    for name, side in (("width", spec.width), ("height", spec.height)):
        if side % SIZE_MULTIPLE or not limits.min_side <= side <= limits.max_side:
            _refuse_side(name, side, model)
    if spec.width * spec.height > limits.max_pixels:
        raise InvalidSpec(
            f"{spec.width}x{spec.height} has more pixels than model {model.model_id} can draw "
            f"({spec.width * spec.height}, at most {limits.max_pixels})",
            hint="make the width or the height smaller",
        )
    if not 1 <= spec.num_inference_steps <= limits.max_steps:
        raise InvalidSpec(
            f"{spec.num_inference_steps} steps: model {model.model_id} takes 1 to "
            f"{limits.max_steps}",
            hint=f"its default is {model.defaults.num_inference_steps}",
        )
    if spec.scheduler not in limits.schedulers:
        raise InvalidSpec(
            f"model {model.model_id} has no scheduler {spec.scheduler!r}"
            f"{_nearest(spec.scheduler, limits.schedulers)}",
            hint="known are " + ", ".join(limits.schedulers),
        )
    # Written so that NaN is refused as well.
    if not 0 <= spec.guidance_scale <= MAX_GUIDANCE:
        raise InvalidSpec(
            f"guidance {spec.guidance_scale:g} must be between 0 and {MAX_GUIDANCE:g}",
            hint=f"the default of model {model.model_id} is {model.defaults.guidance_scale:g}",
        )
    if not 0 <= spec.seed < SEED_LIMIT:
        raise InvalidSpec(f"seed {spec.seed} must be between 0 and {SEED_LIMIT - 1}")


def _refuse_prompt(prompt: str, negative_prompt: str, limit: int) -> NoReturn:
    if not prompt:
        raise InvalidSpec("the prompt is empty", hint="say in words what the picture shall show")
    name, text = ("prompt", prompt) if len(prompt) > limit else ("negative prompt", negative_prompt)
    raise InvalidSpec(
        f"the {name} has {len(text)} characters; this server takes at most {limit}",
        hint="shorten it, or raise server.max_prompt_characters on the server",
    )


def _refuse_side(name: str, side: int, model: ModelManifest) -> NoReturn:
    smallest, largest = model.limits.min_side, model.limits.max_side
    if not smallest <= side <= largest:
        raise InvalidSpec(
            f"{name} {side} is outside what model {model.model_id} can draw",
            hint=f"choose {smallest} to {largest} pixels; its default is "
            f"{model.defaults.width}x{model.defaults.height}",
        )
    below = side - side % SIZE_MULTIPLE
    near = [size for size in (below, below + SIZE_MULTIPLE) if smallest <= size <= largest]
    raise InvalidSpec(
        f"{name} {side} is not a multiple of {SIZE_MULTIPLE}",
        hint=f"the nearest are {' and '.join(map(str, near))}"
        if len(near) > 1
        else f"the nearest is {near[0]}",
    )


def _nearest(name: str, known: Any) -> str:
    # Bounded: difflib's time grows with the length of the name, which anybody may send.
    close = difflib.get_close_matches(name[:100].lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _read(path: Path) -> str | None:
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


def _parse(text: str, where: str) -> _Document:
    try:
        return msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{where}: {_plain(error)}",
            hint="docs/operations.md shows how a model is written down",
        ) from error


def _manifests(document: _Document, where: str) -> dict[str, ModelManifest]:
    return {
        model_id: _manifest(model_id, table, f"{where}: model {model_id!r}")
        for model_id, table in document.models.items()
    }


def _manifest(model_id: str, table: dict[str, Any], where: str) -> ModelManifest:
    try:
        msgspec.convert(model_id, ModelId)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{where}: the id of a model is made of a-z, 0-9, dot, dash and underscore"
        ) from error
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
    )
    _check_defaults(manifest, where)
    return manifest


def _check_files(files: tuple[ModelFile, ...], where: str) -> None:
    seen: set[str] = set()
    for file in files:
        if any(part in ("", ".", "..") for part in file.path.split("/")):
            raise UsageError(f"{where}: files: path {file.path!r} must stay below the folder")
        if file.path in seen:
            raise UsageError(f"{where}: files: {file.path!r} is there twice")
        if not file.links:
            raise UsageError(f"{where}: files: {file.path!r} has no links")
        for link in file.links:
            if not link.partition(":")[0].isalnum() or ":" not in link:
                raise UsageError(
                    f"{where}: files: link {link!r} has no scheme",
                    hint="write https://…, hf://org/name@revision/file or file:///…",
                )
        seen.add(file.path)


def _check_defaults(manifest: ModelManifest, where: str) -> None:
    """The defaults and the canary must be drawable, or nobody could use the model as it is."""
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
    try:
        _check(spec, manifest)
    except InvalidSpec as error:
        raise UsageError(
            f"{where}: defaults: {error.message}", hint="make defaults and limits agree"
        ) from error
    if not unicodedata.normalize("NFC", manifest.canary_prompt).strip():
        raise UsageError(f"{where}: canary_prompt is empty")


def _plain(error: Exception) -> str:
    """msgspec's words without its path syntax: ``defaults.width: expected `int`, got `str```."""
    message, found, path = str(error).partition(" - at `$")
    if not found:
        return message
    return f"{path.rstrip('`').lstrip('.')}: {message[:1].lower()}{message[1:]}"
