"""What a script may say of a picture, as the `SpecDraft` that goes to the server."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from sdq.errors import InvalidSpec
from sdq.spec import LoraChoice, SpecDraft

LoraWish = str | tuple[str, float] | LoraChoice
"""``"neon"``, ``"neon:0.8"``, ``("neon", 0.8)``."""

Item = str | SpecDraft | Mapping[str, Any]
"""A prompt, a draft, or a mapping of a prompt and parameters as in `Parameters`."""


class Parameters(TypedDict, total=False):
    """What may be said beside the prompt, by the names of `SpecDraft`; ``None`` or nothing is the
    model's own. ``size``: width and height in pixels at once."""

    negative_prompt: str
    model: str | None
    size: tuple[int, int]
    width: int | None
    height: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    seed: int | None
    loras: Sequence[LoraWish]


def draft_of(
    item: object, parameters: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None
) -> SpecDraft:
    """The draft of an `Item`: ``parameters`` go before what it says, ``defaults`` behind.

    Raises `InvalidSpec` for what is none, and for a name that there is not. Numbers are looked at
    when it is sent.
    """
    fields = _fields(defaults or {}) | _said(item) | _fields(parameters)
    if "prompt" not in fields:
        raise InvalidSpec("it has no prompt", hint='{"prompt": "a red circle", "seed": 3}')
    return SpecDraft(**fields)


def _said(item: object) -> dict[str, Any]:
    """The fields that an item says something of."""
    if isinstance(item, str):
        return {"prompt": item}
    if isinstance(item, SpecDraft):
        usual = {field.name: field.default for field in msgspec.structs.fields(SpecDraft)}
        given = msgspec.structs.asdict(item)
        return {name: value for name, value in given.items() if value != usual[name]}
    if isinstance(item, Mapping):
        return _fields(item)
    raise InvalidSpec(
        f"a {type(item).__name__} is no prompt", hint="give a str, a SpecDraft or a dict"
    )


def lora_of(wish: LoraWish) -> LoraChoice:
    """What is meant by ``"neon:0.8"``, ``("neon", 0.8)`` or ``"neon"``. Raises `InvalidSpec`."""
    if isinstance(wish, LoraChoice):
        return wish
    if isinstance(wish, str):
        name, colon, weight = wish.rpartition(":")
        pair: Sequence[Any] = (name, weight) if colon else (weight, None)
    else:
        pair = wish
    try:
        name, weight = pair
        return LoraChoice(str(name), None if weight is None else float(weight))
    except (TypeError, ValueError) as error:
        raise InvalidSpec(
            f"{wish!r} is no LoRA", hint='write "neon", "neon:0.8" or ("neon", 0.8)'
        ) from error


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a draft, by its own names."""
    fields = dict(given)
    if "size" in fields:
        try:
            fields["width"], fields["height"] = fields.pop("size")
        except (TypeError, ValueError) as error:
            raise InvalidSpec("size is no pair of numbers", hint="size=(512, 512)") from error
    if isinstance(fields.get("loras"), str):
        raise InvalidSpec("loras is a text, not a list", hint='loras=["neon:0.8"]')
    if "loras" in fields:
        fields["loras"] = tuple(lora_of(wish) for wish in fields["loras"] or ())
    for name in fields:
        if name not in SpecDraft.__struct_fields__:
            known = ", ".join(SpecDraft.__struct_fields__)
            raise InvalidSpec(f"there is no parameter {name!r}", hint=f"known are size, {known}")
    return fields
