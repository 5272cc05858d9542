"""``--from``: a picture file as the beginning of an order."""

from pathlib import Path

import msgspec

from sdq.cli.describing import provenance_of
from sdq.spec import ImageSpec, LoraChoice, SpecDraft


def draft_from(spec: ImageSpec) -> SpecDraft:
    """What asks for exactly this picture, as far as the names of its model and LoRAs can."""
    fields = {name: getattr(spec, name) for name in ImageSpec.__struct_fields__ if name != "loras"}
    return SpecDraft(**fields, loras=tuple(LoraChoice(one.name, one.weight) for one in spec.loras))


def changed(path: Path, draft: SpecDraft, *, new: bool) -> SpecDraft:
    """What the file says, with all that ``draft`` says in its place; ``new``: without its seed.

    Raises `UsageError` when the file is not one of ours.
    """
    known = draft_from(provenance_of(path).spec)
    usual = {field.name: field.default for field in msgspec.structs.fields(SpecDraft)}
    given = msgspec.structs.asdict(draft)
    given = {name: value for name, value in given.items() if value != usual[name]}
    if not given.get("prompt"):
        given.pop("prompt", None)
    if new:
        given["seed"] = None
    return msgspec.structs.replace(known, **given)
