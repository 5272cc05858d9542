"""Which files of a repository on the Hugging Face hub make up a pipeline.

The hub's own interface (https://huggingface.co/docs/hub/api): ``/api/models/…/revision/…`` names
the commit, ``/api/models/…/tree/…`` the files; large ones with their SHA-256.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

import msgspec

from sdq.errors import ModelError
from sdq.worker.fetch.faults import Unreachable
from sdq.worker.fetch.links import Address, hub_address, hub_place
from sdq.worker.fetch.paths import PICKLED
from sdq.worker.fetch.web import read_document

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_PAGES = 20
INDEX = "model_index.json"
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|ema|non_ema)\.safetensors$")


class HubFile(NamedTuple):
    """``sha256`` is empty for small files, of which the hub keeps another kind of hash."""

    path: str
    size_bytes: int
    sha256: str


class Repository(NamedTuple):
    """One commit of it. ``link_of`` a file is pinned to that commit."""

    name: str
    commit: str
    files: tuple[HubFile, ...]

    def link_of(self, path: str) -> str:
        return f"hf://{self.name}@{self.commit}/{path}"


class _Large(msgspec.Struct):
    oid: str
    size: int


class _Entry(msgspec.Struct):
    type: str
    path: str
    size: int = 0
    lfs: _Large | None = None


class _Revision(msgspec.Struct):
    sha: str


def repository(link: str, environ: Mapping[str, str]) -> Repository:
    """The repository of ``hf://org/name@revision`` as it is now. Raises `Unreachable`."""
    place = hub_place(link)
    base = f"api/models/{quote(place.repository)}"
    revision = quote(place.revision, safe="")
    found = _ask(hub_address(f"{base}/revision/{revision}", environ), _Revision)[0]
    address: Address | None = hub_address(
        f"{base}/tree/{quote(found.sha, safe='')}?recursive=true", environ
    )
    files: list[HubFile] = []
    for _ in range(MAX_PAGES):
        if address is None:
            break
        entries, headers = _ask(address, list[_Entry])
        files += [_file(entry) for entry in entries if entry.type == "file"]
        following = _NEXT.search(headers.get("link", ""))
        address = _further(address, following[1]) if following else None
    return Repository(place.repository, found.sha, tuple(files))


def pipeline_files(files: Sequence[HubFile], index: bytes) -> list[HubFile]:
    """Those that diffusers reads for the ``index`` (`model_index.json`): of each part its texts
    and its safetensors, in halves where there are such for all of them.

    Raises `ModelError` when a part has weights but none as safetensors.
    """
    parts = _parts(index)
    chosen = [file for file in files if file.path == INDEX]
    inside = {part: [file for file in files if file.path.startswith(f"{part}/")] for part in parts}
    weights = {part: _weights(part, found) for part, found in inside.items()}
    halves = all("fp16" in found for found in weights.values() if found)
    for part, found in inside.items():
        mine = weights[part].get("fp16" if halves else "", []) if weights[part] else []
        is_split = any("-of-" in file.path for file in mine)
        chosen += mine
        chosen += [file for file in found if _is_text(file) and (is_split or not _lists(file))]
    return sorted(chosen, key=lambda file: file.path)


def _is_text(file: HubFile) -> bool:
    return file.path.endswith((".json", ".txt"))


def _lists(file: HubFile) -> bool:
    """Whether it says in which of several files each weight lies."""
    return file.path.endswith(".index.json")


def _weights(part: str, files: Sequence[HubFile]) -> dict[str, list[HubFile]]:
    """By variant, empty for the plain ones."""
    found: dict[str, list[HubFile]] = {}
    for file in files:
        if file.path.endswith(".safetensors"):
            variant = _VARIANT.search(file.path)
            found.setdefault(variant[1] if variant else "", []).append(file)
    if not found and any(file.path.endswith(PICKLED) for file in files):
        raise ModelError(
            f"the weights of {part!r} are pickled, which would run whatever is in them",
            hint="choose a repository with safetensors",
        )
    return found


def _parts(index: bytes) -> list[str]:
    try:
        document = msgspec.json.decode(index, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ModelError(f"its {INDEX} is broken: {error}") from error
    return sorted(
        name
        for name, value in document.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None
    )


def _file(entry: _Entry) -> HubFile:
    if entry.lfs is None:
        return HubFile(entry.path, entry.size, "")
    return HubFile(entry.path, entry.lfs.size, entry.lfs.oid)


def _further(address: Address, link: str) -> Address:
    try:
        return address.at(urljoin(address.url, link))
    except ValueError as error:
        raise Unreachable(f"the hub names a further page that is no address: {error}") from error


def _ask(address: Address, kind: Any) -> tuple[Any, dict[str, str]]:
    data, headers = read_document(address, MAX_ANSWER_BYTES)
    try:
        return msgspec.json.decode(data, type=kind), headers
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreachable(f"the hub gives an answer that cannot be read: {error}") from error
