"""What a link means: a file of this computer, or an address of the web.

::

    builtin:shapes/unet/config.json         from an installed package of weights
    builtin:shapes-loras/neon.safetensors   a LoRA of the same package
    file:///srv/models/unet/config.json     from this computer
    https://example.org/model.safetensors   http:// too
    hf://org/name@revision/path/to/file     the Hugging Face hub, or HF_ENDPOINT, with HF_TOKEN
    https://drive.google.com/file/d/ID/…    a share link of Google Drive
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from sdq.worker.fetch.faults import Unreachable
from sdq.worker.fetch.paths import place


class Builtin(NamedTuple):
    """An installed package of weights, and its function that names the files' folder."""

    package: str
    function: str
    distribution: str
    checkout: str


BUILTIN_PACKAGES = {
    "shapes": Builtin("sdq_shapes", "folder", "sdq-shapes", "./models/shapes"),
    "shapes-loras": Builtin("sdq_shapes", "loras", "sdq-shapes", "./models/shapes"),
}
"""By the name in a ``builtin:`` link."""

DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download"


class Address(NamedTuple):
    """Of the web. The token goes to the address' own host only."""

    url: str
    token: str = ""

    def at(self, url: str) -> "Address":
        """Another address that this one's host has named: with the token if it is there too."""
        return Address(url, self.token if origin_of(url) == origin_of(self.url) else "")


def origin_of(url: str) -> tuple[str, str]:
    """Scheme, and host with port. Raises `ValueError`."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def resolve(link: str, environ: Mapping[str, str]) -> Path | Address:
    """Where the file is. Raises `Unreachable` for a link that leads nowhere."""
    scheme, _, rest = link.partition(":")
    try:
        urlsplit(link)
    except ValueError as error:
        raise Unreachable(f"it is no address: {error}") from error
    if scheme == "builtin":
        return _builtin(rest)
    if scheme == "file":
        return _local(link)
    if scheme == "hf":
        return _of_the_hub(link, environ)
    if scheme in ("https", "http"):
        return Address(_of_drive(link) or link)
    raise Unreachable(f"links that begin with {scheme!r} are not known here")


def _builtin(rest: str) -> Path:
    name, _, relative = rest.partition("/")
    known = BUILTIN_PACKAGES.get(name)
    if known is None:
        raise Unreachable(
            f"there is no built-in model {name!r}, known are: {', '.join(BUILTIN_PACKAGES)}"
        )
    install = (
        f"`pip install --upgrade {known.distribution}`, "
        f"or `pip install {known.checkout}` in a checkout of sdq"
    )
    try:
        package = importlib.import_module(known.package)
    except ImportError as error:
        raise Unreachable(
            f"the package {known.distribution} is not installed: {install}"
        ) from error
    folder = getattr(package, known.function, None)
    if folder is None:
        raise Unreachable(f"the installed {known.distribution} is older than this sdq: {install}")
    return place(Path(folder()), relative)


def _local(link: str) -> Path:
    parts = urlsplit(link)
    if parts.netloc not in ("", "localhost"):
        raise Unreachable("a file:// link has three slashes: file:///path")
    path = unquote(parts.path)
    if "\0" in path:
        raise Unreachable("a file:// link with a zero in it names no file")
    return Path(path)


class HubPlace(NamedTuple):
    """``hf://org/name@revision/path``; the path is empty for the whole repository."""

    repository: str
    revision: str
    path: str


def hub_place(link: str) -> HubPlace:
    """Raises `Unreachable` for what is no link of the hub."""
    parts = link.removeprefix("hf:").removeprefix("//").split("/", 2)
    name, at, revision = parts[1].partition("@") if len(parts) > 1 else ("", "", "")
    if not parts[0] or not name or (at and not revision) or parts[2:] == [""]:
        raise Unreachable("write hf://org/name@revision/file, or hf://org/name@revision for all")
    return HubPlace(f"{parts[0]}/{name}", revision or "main", parts[2] if parts[2:] else "")


def hub_address(path: str, environ: Mapping[str, str]) -> Address:
    """``path`` at the hub, or at ``HF_ENDPOINT``, with the token of the environment.

    Raises `Unreachable` for what cannot be a token, without naming it.
    """
    endpoint = environ.get("HF_ENDPOINT") or "https://huggingface.co"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environ.get(name, "").strip():  # a line feed comes with it from a file
            break
    if not all("!" <= sign <= "~" for sign in token):
        # Here, in our words: a header that cannot be sent is quoted in the error of who tries.
        raise Unreachable(f"{name} holds something that no token has: a blank, or no ASCII")
    return Address(f"{endpoint.strip().rstrip('/')}/{path}", token)


def _of_the_hub(link: str, environ: Mapping[str, str]) -> Address:
    place = hub_place(link)
    if not place.path:
        raise Unreachable("a link to one file is needed: hf://org/name@revision/file")
    revision = quote(place.revision, safe="")
    path = f"{quote(place.repository)}/resolve/{revision}/{quote(place.path)}"
    return hub_address(path, environ)


def _of_drive(link: str) -> str:
    """The address behind a share link, which itself leads to a page; empty for other links."""
    parts = urlsplit(link)
    if parts.hostname not in DRIVE_HOSTS or parts.path == "/download":
        return ""
    segments = parts.path.split("/")
    query = parse_qs(parts.query)
    file_id = query.get("id", [""])[0]
    if "d" in segments[:-1]:
        file_id = segments[segments.index("d") + 1]
    if not file_id:
        raise Unreachable("this link of Google Drive names no file (a folder cannot be fetched)")
    wanted = {"id": file_id, "export": "download"}
    if key := query.get("resourcekey"):
        wanted["resourcekey"] = key[0]
    return DRIVE_DOWNLOAD + "?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in wanted.items())
