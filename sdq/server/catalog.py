"""The catalog: which models and LoRAs there are, and what a draft means for them.

It is read from the ``catalog.toml`` that sdq ships and from a file of the operator in the same
form, whose entries are added, or replace those of the same id as a whole.
"""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import NoReturn

import msgspec

from sdq.errors import InvalidSpec, UnknownModel, UsageError
from sdq.protocol.model import LoraManifest, ModelFile, ModelManifest
from sdq.server.catalog_file import CatalogFile, parse, read
from sdq.server.lora_choices import chosen, found_lora
from sdq.server.model_limits import check, nearest
from sdq.spec import MAX_PROMPT_CHARACTERS, ImageSpec, SpecDraft, normalize_text

_SHIPPED = "sdq's catalog.toml"


class Catalog:
    """Made by `Catalog.load`; changes only as a whole, by `reload`."""

    def __init__(
        self,
        manifests: dict[str, ModelManifest],
        default_model_id: str,
        max_prompt_characters: int,
        *,
        file: Path | None = None,
        own: frozenset[str] = frozenset(),
        loras: dict[str, LoraManifest] | None = None,
        own_loras: frozenset[str] = frozenset(),
    ) -> None:
        self.default_model_id = default_model_id
        self.max_prompt_characters = min(max_prompt_characters, MAX_PROMPT_CHARACTERS)
        self.file = file
        """The operator's file, whether it is there or not."""
        self.own = own
        """The models that it names."""
        self.own_loras = own_loras
        self.version = 0
        """Grows with each change."""
        self._manifests = manifests
        self._loras = loras or {}
        self._lora_files = _by_hash(self._loras)

    @classmethod
    def load(cls, extra: Path | None = None, *, max_prompt_characters: int = 2_000) -> "Catalog":
        """What is shipped and what the file ``extra`` says, when there is such a file.

        Raises `UsageError` naming file, entry and field of a mistake.
        """
        shipped = resources.files("sdq.server").joinpath("catalog.toml")
        default, manifests, loras = parse(shipped.read_text("utf-8"), _SHIPPED)
        where = _SHIPPED
        text = None if extra is None else read(extra)
        own = CatalogFile(None, {}, {}) if text is None else parse(text, str(extra))
        if own.default is not None:
            default, where = own.default, str(extra)
        manifests |= own.manifests
        if default is None or default not in manifests:
            raise UsageError(
                f"{where}: default = {default!r} is not a model of the catalog",
                hint="its models are " + ", ".join(sorted(manifests)),
            )
        return cls(
            manifests,
            default,
            max_prompt_characters,
            file=extra,
            own=frozenset(own.manifests),
            loras=loras | own.loras,
            own_loras=frozenset(own.loras),
        )

    def reload(self) -> None:
        """Reads both files again. Raises `UsageError`; nothing has changed then."""
        new = Catalog.load(self.file, max_prompt_characters=self.max_prompt_characters)
        self.default_model_id, self.own = new.default_model_id, new.own
        self.own_loras = new.own_loras
        self._manifests, self._loras = new._manifests, new._loras
        self._lora_files = new._lora_files
        self.version += 1

    def manifest(self, model_id: str | None) -> ModelManifest:
        """A model, the default one for ``None``. Raises `UnknownModel` with the nearest name."""
        found = self._manifests.get(self.default_model_id if model_id is None else model_id)
        if found is None:
            raise UnknownModel(
                f"there is no model {model_id!r}{nearest(str(model_id), self._manifests)}",
                hint="known are " + ", ".join(sorted(self._manifests)),
            )
        return found

    def manifests(self) -> tuple[ModelManifest, ...]:
        """All models, sorted by id."""
        return tuple(self._manifests[model_id] for model_id in sorted(self._manifests))

    def fingerprints(self) -> dict[str, str]:
        """By id, of all models."""
        return {model_id: found.fingerprint for model_id, found in self._manifests.items()}

    def lora(self, lora_id: str) -> LoraManifest:
        """Raises `UnknownLora` with the nearest name."""
        return found_lora(lora_id, self._loras)

    def loras(self, model_id: str | None = None) -> tuple[LoraManifest, ...]:
        """All LoRAs, or those for one model, sorted by id."""
        return tuple(
            self._loras[lora_id]
            for lora_id in sorted(self._loras)
            if model_id is None or model_id in self._loras[lora_id].models
        )

    def lora_files(self, sha256s: Iterable[str]) -> tuple[ModelFile, ...]:
        """The LoRA files with these hashes, as far as the catalog names them."""
        return tuple(self._lora_files[sha256] for sha256 in sha256s if sha256 in self._lora_files)

    def resolve(self, draft: SpecDraft) -> ImageSpec:
        """The draft with the model's defaults where it is silent, checked against its limits.

        The seed is 0 where the draft names none. Raises `InvalidSpec`, `UnknownModel` or
        `UnknownLora`. On the path of every quick hit: a few microseconds.
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
            chosen(draft.loras, model, self._loras) if draft.loras else (),
        )
        check(spec, model)
        return spec


def _by_hash(loras: dict[str, LoraManifest]) -> dict[str, ModelFile]:
    """One file under two names has the links of both."""
    found: dict[str, ModelFile] = {}
    for lora_id in sorted(loras):
        file = loras[lora_id].file
        first = found.setdefault(file.sha256, file)
        if first is not file:
            links = tuple(dict.fromkeys(first.links + file.links))
            found[file.sha256] = msgspec.structs.replace(first, links=links)
    return found


def _refuse_prompt(prompt: str, negative_prompt: str, limit: int) -> NoReturn:
    if not prompt:
        raise InvalidSpec("the prompt is empty", hint="say in words what the picture shall show")
    name, text = ("prompt", prompt) if len(prompt) > limit else ("negative prompt", negative_prompt)
    raise InvalidSpec(
        f"the {name} has {len(text)} characters; this server takes at most {limit}",
        hint="shorten it, or raise server.max_prompt_characters on the server",
    )
