"""From links to the entry of a LoRA: its file is looked at before anybody can ask for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import msgspec

from sdq.cli.publishing import Report, check_told, checked, measured
from sdq.errors import ModelError
from sdq.protocol.model import LoraManifest, ModelFile, RelativePath

_ENDING = ".safetensors"


@dataclass(frozen=True)
class LoraWishes:
    """What the person says of it."""

    models: Sequence[str]
    title: str | None = None
    license: str | None = None
    weight: float | None = None
    trigger: str | None = None


def lora_file(
    lora_id: str,
    links: Sequence[str],
    *,
    sha256: str = "",
    size_bytes: int | None = None,
    report: Report = lambda file, done: None,
) -> ModelFile:
    """The file behind the links, which are mirrors of one another.

    It is streamed once, unless size and hash are both given. Raises `UsageError`, and
    `DownloadError` or `ModelError` for what the links give.
    """
    from sdq.worker.fetch.paths import PICKLED, check_kind

    named = PurePosixPath(unquote(urlsplit(links[0]).path)).name
    if named.lower().endswith(PICKLED):
        check_kind(named)  # says why
    path = named if _is_fit(named) else f"{lora_id}{_ENDING}"
    sha256 = sha256.lower()
    if sha256 and size_bytes is not None:
        return ModelFile(path, size_bytes, sha256, tuple(links))
    found = measured(links, path, report)
    check_told(links[0], found, sha256, size_bytes)
    _check_content(links[0], path, found.head)
    return ModelFile(path, found.size_bytes, found.sha256, tuple(links))


def lora_manifest_of(lora_id: str, file: ModelFile, wishes: LoraWishes) -> LoraManifest:
    """The entry. Raises `UsageError` for what no LoRA can have."""
    manifest = LoraManifest(
        lora_id=lora_id,
        title=wishes.title or lora_id,
        license=wishes.license or "unknown: ask its publisher",
        models=tuple(dict.fromkeys(wishes.models)),
        file=file,
        weight=1.0 if wishes.weight is None else wishes.weight,
        trigger=wishes.trigger or "",
    )
    return checked(manifest, hint="`sdq model add-lora --help` shows what can be said of a LoRA")


def _is_fit(name: str) -> bool:
    """Whether the link's own name can be the file's; many links end in a number."""
    try:
        msgspec.convert(name, RelativePath)
    except msgspec.ValidationError:
        return False
    return name.endswith(_ENDING)


def _check_content(link: str, path: str, head: bytes) -> None:
    """What is no LoRA is refused here, not on each worker. Raises `ModelError`."""
    from sdq.worker.lora_files import FIRST_HALVES
    from sdq.worker.tensor_files import shapes_in

    try:
        tensors = shapes_in(path, head)
    except ModelError as error:
        raise ModelError(
            f"what {link} gives is no safetensors file",
            hint="look at it: a page to log in at, say, or the file in another form",
        ) from error
    if not any(half in tensor for tensor in tensors for half in FIRST_HALVES):
        raise ModelError(
            f"{link} holds no LoRA: none of its {len(tensors)} tensors has the name of one",
            hint="a whole model is added with `sdq model add`",
        )
