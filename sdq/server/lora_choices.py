"""What the LoRAs that a draft names mean: which files, how strong, in one order."""

from collections.abc import Mapping, Sequence

from sdq.errors import InvalidSpec, UnknownLora
from sdq.protocol.model import LoraManifest, ModelManifest
from sdq.server.model_limits import nearest
from sdq.spec import MAX_LORA_WEIGHT, MAX_LORAS, Lora, LoraChoice


def found_lora(name: str, known: Mapping[str, LoraManifest]) -> LoraManifest:
    """Raises `UnknownLora` with the nearest name."""
    found = known.get(name)
    if found is None:
        raise UnknownLora(
            f"there is no LoRA {name!r}{nearest(name, known)}",
            hint="`sdq model loras` lists them"
            if known
            else "this server has none yet: `sdq model add-lora` adds one",
        )
    return found


def chosen(
    choices: Sequence[LoraChoice],
    model: ModelManifest,
    known: Mapping[str, LoraManifest],
) -> tuple[Lora, ...]:
    """As `sdq.spec.ImageSpec` has them: sorted by hash, those of weight 0 left out.

    Raises `UnknownLora`, and `InvalidSpec` for one that is not for this model, that is there
    twice, or whose weight is out of range.
    """
    if len(choices) > MAX_LORAS:
        raise InvalidSpec(f"{len(choices)} LoRAs in one picture: at most {MAX_LORAS} can be drawn")
    names: dict[str, str] = {}  # by hash
    loras = []
    for choice in choices:
        manifest = found_lora(choice.name, known)
        _check_model(manifest, model)
        lora_id, sha256 = manifest.lora_id, manifest.file.sha256
        if sha256 in names:
            _refuse_twice(names[sha256], lora_id)
        names[sha256] = lora_id
        weight = float(manifest.weight if choice.weight is None else choice.weight)
        # Written so that NaN is refused as well.
        if not -MAX_LORA_WEIGHT <= weight <= MAX_LORA_WEIGHT:
            raise InvalidSpec(
                f"the weight {weight:g} of LoRA {lora_id!r} must be between "
                f"{-MAX_LORA_WEIGHT:g} and {MAX_LORA_WEIGHT:g}",
                hint=f"its usual one is {manifest.weight:g}",
            )
        if weight:  # minus zero is zero too
            loras.append(Lora(lora_id, sha256, weight))
    return tuple(sorted(loras, key=lambda lora: lora.sha256))


def _check_model(manifest: LoraManifest, model: ModelManifest) -> None:
    if model.model_id in manifest.models:
        return
    raise InvalidSpec(
        f"LoRA {manifest.lora_id!r} is for {', '.join(manifest.models)}, not for {model.model_id}",
        hint=f"`sdq model loras --model {model.model_id}` lists those that are",
    )


def _refuse_twice(first: str, second: str) -> None:
    if first == second:
        raise InvalidSpec(
            f"LoRA {first!r} is there twice",
            hint="name it once, with the weight that it shall have",
        )
    raise InvalidSpec(
        f"the LoRAs {first!r} and {second!r} are the same file", hint="name one of them"
    )
