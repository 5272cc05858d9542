"""From links to an entry of the catalog: what is not known of the files is found out here."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from sdq.errors import DownloadError, ModelError, UsageError
from sdq.protocol.model import (
    LoraManifest,
    ModelDefaults,
    ModelFile,
    ModelId,
    ModelManifest,
    RelativePath,
    Sha256,
    fingerprint_of,
)

if TYPE_CHECKING:
    from sdq.worker.fetch.measure import Measured

ManifestT = TypeVar("ManifestT", ModelManifest, LoraManifest)
Kind = Literal["folder", "single_file", "archive"]
Report = Callable[[str, int], None]
"""``report(file, bytes so far)``."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_LIKE = {
    "sd1": "sd15",
    "sdxl": "sdxl",
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
}
"""From what is found in the files to the shipped model of the same family."""


@dataclass(frozen=True)
class Files:
    """What the links lead to. ``like``: the shipped model that it resembles, where we can tell."""

    kind: Kind
    files: tuple[ModelFile, ...]
    like: str = ""


@dataclass(frozen=True)
class Wishes:
    """What the person says of the model; ``None``: as the model that it is like."""

    title: str | None = None
    license: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    canary_prompt: str | None = None
    memory_bytes: int | None = None
    is_distilled: bool | None = None
    golden: str = ""  # as `golden_of` gives it; never that of the model that it is like


def check_names(model_id: str, sha256: str) -> None:
    """Before anything large is read. Raises `UsageError`."""
    for value, kind, words in (
        (model_id, ModelId, "an id is made of letters, digits, dots, dashes and underscores"),
        (sha256.lower() or "0" * 64, Sha256, "a sha256 has 64 hexadecimal digits"),
    ):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise UsageError(f"{value!r} is not allowed: {words}") from error


def golden_of(file: Path) -> str:
    """A picture as the catalog has its golden ones. Raises `UsageError` when it is none."""
    from PIL import Image

    from sdq.worker.golden import encoded

    try:
        with Image.open(file) as picture:
            return encoded(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"--golden: cannot read {file}: {getattr(error, 'strerror', None) or error}",
            hint="give it a picture that the model has drawn of its canary prompt, as PNG",
        ) from error


def look_at(
    links: Sequence[str],
    *,
    sha256: str = "",
    size_bytes: int | None = None,
    name: str = "",
    report: Report = lambda file, done: None,
) -> Files:
    """The files behind the links, measured where nobody has said what they are.

    One file (its links are mirrors of one another), ``path=link`` for each file of a folder, or a
    whole repository, ``hf://org/name@revision``. Files are streamed once to hash them. ``sha256``,
    ``size_bytes`` and ``name`` are about one file, which is not read when both of the former are
    given. Raises `UsageError`, and `DownloadError` or `ModelError` for
    what the links give.
    """
    named = [link.partition("=") for link in links]
    with_paths = [bool(separator) and ":" not in path for path, separator, _ in named]
    is_repository = len(links) == 1 and _is_repository(links[0])
    if any(with_paths) and not all(with_paths):
        raise UsageError(
            "some links say which file of a folder they are, others do not",
            hint="write PATH=LINK for each file of a folder, or the mirrors of one file",
        )
    if (sha256 or name or size_bytes is not None) and (is_repository or all(with_paths)):
        raise UsageError(
            "--sha256, --bytes and --name are about a single file, this is a folder",
            hint="leave them away: each file is read, and has its own",
        )
    if is_repository:
        return _repository(links[0], report)
    if all(with_paths):
        return _folder([(path, link) for path, _, link in named], report)
    return _one_file(links, sha256.lower(), size_bytes, name, report)


def manifest_of(model_id: str, found: Files, like: ModelManifest, wishes: Wishes) -> ModelManifest:
    """The entry. What the person leaves open is as in the model that it is like.

    Raises `UsageError` for what no model can have.
    """
    was = like.defaults
    defaults = ModelDefaults(
        width=was.width if wishes.width is None else wishes.width,
        height=was.height if wishes.height is None else wishes.height,
        num_inference_steps=was.num_inference_steps if wishes.steps is None else wishes.steps,
        guidance_scale=was.guidance_scale if wishes.guidance is None else wishes.guidance,
        scheduler=wishes.scheduler or was.scheduler,
    )
    distilled = like.is_distilled if wishes.is_distilled is None else wishes.is_distilled
    manifest = ModelManifest(
        model_id=model_id,
        title=wishes.title or model_id,
        kind=found.kind,
        license=wishes.license or "unknown: ask its publisher",
        files=found.files,
        defaults=defaults,
        limits=like.limits,
        canary_prompt=wishes.canary_prompt or like.canary_prompt,
        fingerprint=fingerprint_of(found.files),
        memory_bytes=like.memory_bytes if wishes.memory_bytes is None else wishes.memory_bytes,
        is_distilled=distilled,
        golden=wishes.golden,
    )
    return checked(manifest, hint="`sdq model add --help` shows what can be said of a model")


def checked(manifest: ManifestT, *, hint: str) -> ManifestT:
    """The entry, as the server would read it. Raises `UsageError` for what it would not take."""
    try:
        return msgspec.convert(msgspec.to_builtins(manifest), type(manifest))
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise UsageError(
            f"{where.rstrip('`') or 'the entry'}: {what[:1].lower()}{what[1:]}", hint=hint
        ) from error


def check_told(link: str, found: "Measured", sha256: str, size_bytes: int | None) -> None:
    """Whether the file is the one that was spoken of, as far as it was. Raises `ModelError`."""
    if sha256 and sha256 != found.sha256:
        raise ModelError(
            f"{link} has the sha256 {found.sha256}, not the one that is given",
            hint="it is another file: ask where both come from",
        )
    if size_bytes not in (None, found.size_bytes):
        raise ModelError(
            f"{link} has {found.size_bytes} bytes, not {size_bytes}",
            hint="it is another file: ask where both come from",
        )


def _one_file(
    links: Sequence[str], sha256: str, size_bytes: int | None, name: str, report: Report
) -> Files:
    from sdq.worker.fetch.paths import check_kind

    path = name or PurePosixPath(unquote(urlsplit(links[0]).path)).name
    if not PurePosixPath(path).suffix:
        raise UsageError(
            f"{links[0]} does not say what kind of file it is", hint="name it: --name x.safetensors"
        )
    _check_path(path)
    kind: Kind = "archive" if path.lower().endswith(ARCHIVES) else "single_file"
    if kind == "single_file":
        check_kind(path)
    if sha256 and size_bytes is not None:
        return Files(kind, (ModelFile(path, size_bytes, sha256, tuple(links)),))
    found = measured(links, path, report)
    check_told(links[0], found, sha256, size_bytes)
    file = ModelFile(path, found.size_bytes, found.sha256, tuple(links))
    return Files(kind, (file,), _LIKE.get(_layout(path, found), ""))


def _folder(named: Sequence[tuple[str, str]], report: Report) -> Files:
    from sdq.worker.fetch.paths import check_kind

    mirrors: dict[str, list[str]] = {}
    for path, link in named:
        _check_path(path)
        check_kind(path)
        mirrors.setdefault(path, []).append(link)
    files, like = [], ""
    for path, links in mirrors.items():
        found = measured(links, path, report)
        files.append(ModelFile(path, found.size_bytes, found.sha256, tuple(links)))
        like = like or (_class_of(found.head) if path == "model_index.json" else "")
    return Files("folder", tuple(files), _LIKE.get(like, ""))


def _repository(link: str, report: Report) -> Files:
    from sdq.worker.fetch.hub import INDEX, pipeline_files, repository

    there = repository(link, os.environ)
    if all(file.path != INDEX for file in there.files):
        raise UsageError(
            f"{link} holds no pipeline of diffusers (there is no {INDEX})",
            hint="name one of its files: hf://org/name@revision/file.safetensors",
        )
    index = measured([there.link_of(INDEX)], INDEX, report)
    files = []
    for file in pipeline_files(there.files, index.head):
        size_bytes, sha256, links = file.size_bytes, file.sha256, (there.link_of(file.path),)
        if not sha256:
            size_bytes, sha256, _ = measured(links, file.path, report)
        files.append(ModelFile(file.path, size_bytes, sha256, links))
    return Files("folder", tuple(files), _LIKE.get(_class_of(index.head), ""))


def _check_path(path: str) -> None:
    """Before gigabytes are read: the server would refuse it after them."""
    try:
        msgspec.convert(path, RelativePath)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path!r} cannot be the name of a model's file",
            hint="it is made of letters, digits, dots, dashes and underscores; for one file, say "
            "--name model.safetensors",
        ) from error


def _is_repository(link: str) -> bool:
    from sdq.worker.fetch.links import hub_place

    return link.startswith("hf:") and not hub_place(link).path


def measured(links: Sequence[str], path: str, report: Report) -> "Measured":
    """What the first mirror that gives the file gives. Raises `DownloadError`."""
    from sdq.worker.fetch.measure import measure

    reasons = []
    for link in links:
        try:
            return measure(link, lambda done: report(path, done))
        except DownloadError as error:
            reasons.append(f"{link}: {error.message}")
    raise DownloadError(
        f"cannot read {path}: " + "; ".join(reasons),
        hint="nothing is published without hash and size; `--help` says how to give both",
    )


def _layout(path: str, measured: "Measured") -> str:
    """The family of a checkpoint. A file that is none is refused here, not on each worker."""
    if not path.endswith(".safetensors"):
        return ""
    from sdq.worker.layouts.families import layout_in

    try:
        return layout_in(path, measured.head)
    except ModelError as error:
        hint = "look at what the link gives: a page to log in at, say, or only a part of a model"
        raise ModelError(error.message, hint=hint) from error


def _class_of(index: bytes) -> str:
    try:
        document: Mapping[str, object] = msgspec.json.decode(index, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return str(document.get("_class_name", ""))
