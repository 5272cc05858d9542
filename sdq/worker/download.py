"""One file of a model: fetched, resumed, verified, and only then put in its place.

Links are tried in order::

    builtin:shapes/unet/config.json         from an installed package of weights
    file:///srv/models/unet/config.json     from this computer
    https://example.org/model.safetensors   resumes where it stopped; http:// too
    hf://org/name@revision/path/to/file     the Hugging Face hub, or HF_ENDPOINT, with HF_TOKEN

A file grows as ``NAME.part`` and gets its name when size and SHA-256 are right. Cancelling
(Ctrl-C) is safe at any moment: the part stays, the next try goes on from there.
"""

import hashlib
import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.worker.http_source import Unreachable, download, hub_address

READ_CHUNK_BYTES = 1024 * 1024
BUILTIN_PACKAGES = {"shapes": ("sdq_shapes", "sdq-shapes", "./models/shapes")}
"""By the name in a ``builtin:`` link: package, its distribution, its place in a checkout."""

_log = logging.getLogger(__name__)


class WrongContent(Unreachable):
    """The link gives a file, but not the one that the manifest names."""

    code = "wrong_content"


def fetch_file(file: ModelFile, target: Path, report: Callable[[int], None]) -> None:
    """Puts the file at ``target``; ``report`` hears the bytes that are there so far.

    Raises `DownloadError` that names the reason of each link, or the wrong hash.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        reasons = _try_links(file, part, report)
        if reasons is not None:
            raise _refusal(file, reasons)
        part.replace(target)
    except OSError as error:
        raise DownloadError(
            f"cannot write {target}: {error.strerror or error}",
            hint="make room or mend the permissions, then install again: it goes on from there",
        ) from error


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def place(folder: Path, relative: str) -> Path:
    """``relative`` below ``folder``. Raises `DownloadError` for a path that leaves it."""
    root = folder.resolve()
    found = (root / relative).resolve()
    if root not in found.parents:
        raise DownloadError(
            f"the path {relative!r} leads out of {folder}",
            hint="the manifest is not to be trusted: ask whoever runs the server",
        )
    return found


def _try_links(file: ModelFile, part: Path, report: Callable[[int], None]) -> list[str] | None:
    """``None`` when the part is whole and right, else the reason of each link."""
    reasons = []
    for link in file.links:
        resumed = part.exists()
        try:
            try:
                _fetch_and_verify(link, file, part, report)
            except WrongContent:
                if not resumed:
                    raise
                _fetch_and_verify(link, file, part, report)  # the old part was to blame, perhaps
        except Unreachable as error:
            reasons.append(f"{link}: {error}")
            _log.info("%s: %s", link, error)
        else:
            return None
    return reasons or ["it has no link"]


def _fetch_and_verify(
    link: str, file: ModelFile, part: Path, report: Callable[[int], None]
) -> None:
    _fetch(link, file, part, report)
    _verify(file, part)


def _fetch(link: str, file: ModelFile, part: Path, report: Callable[[int], None]) -> None:
    scheme, _, rest = link.partition(":")
    if scheme == "builtin":
        _copy(_builtin(rest), part, report)
    elif scheme == "file":
        _copy(_local(link), part, report)
    elif scheme in ("https", "http"):
        download(link, part, file.size_bytes, report)
    elif scheme == "hf":
        address, token = hub_address(rest, os.environ)
        download(address, part, file.size_bytes, report, token=token)
    else:
        raise Unreachable(f"links that begin with {scheme!r} are not known here")


def _verify(file: ModelFile, part: Path) -> None:
    found_bytes = part.stat().st_size
    if file.size_bytes is not None and found_bytes != file.size_bytes:
        part.unlink()
        raise WrongContent(f"expected {file.size_bytes} bytes, found {found_bytes}")
    found = sha256_of(part)
    if found != file.sha256:
        part.unlink()
        raise WrongContent(f"wrong hash: expected sha256 {file.sha256}, found {found}")


def _refusal(file: ModelFile, reasons: list[str]) -> DownloadError:
    return DownloadError(
        f"cannot fetch {file.path}: " + "; ".join(reasons),
        hint="nothing was installed; try again later, or tell whoever keeps the server's catalog",
    )


def _builtin(rest: str) -> Path:
    name, _, relative = rest.partition("/")
    known = BUILTIN_PACKAGES.get(name)
    if known is None:
        raise Unreachable(
            f"there is no built-in model {name!r}, known are: {', '.join(BUILTIN_PACKAGES)}"
        )
    package, distribution, checkout = known
    try:
        folder = Path(importlib.import_module(package).folder())
    except ImportError as error:
        raise Unreachable(
            f"the package {distribution} is not installed: `pip install {distribution}`, "
            f"or `pip install {checkout}` in a checkout of sdq"
        ) from error
    return place(folder, relative)


def _local(link: str) -> Path:
    parts = urlsplit(link)
    if parts.netloc not in ("", "localhost"):
        raise Unreachable("a file:// link has three slashes: file:///path")
    return Path(unquote(parts.path))


def _copy(source: Path, part: Path, report: Callable[[int], None]) -> None:
    try:
        reader = source.open("rb")
    except OSError as error:
        raise Unreachable(f"cannot read {source}: {error.strerror or error}") from error
    done = 0
    with reader, part.open("wb") as writer:
        while chunk := reader.read(READ_CHUNK_BYTES):
            writer.write(chunk)
            done += len(chunk)
            report(done)
        writer.flush()
        os.fsync(writer.fileno())
