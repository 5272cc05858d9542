"""Streaming one URL into a ``.part`` file, resuming where an earlier try stopped."""

import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from sdq import __version__
from sdq.errors import DownloadError

CHUNK_BYTES = 256 * 1024
TIMEOUT_SECONDS = 30.0
MAX_FILE_BYTES = 256 * 1024**3
"""For files whose publisher names no size."""

RETRY_WAITS_SECONDS = (0.5, 1.0, 2.0)
"""Pauses between the tries of one link; a try that brought `PROGRESS_BYTES` starts them anew."""

PROGRESS_BYTES = 4 * 1024 * 1024
_PASSING_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})

_log = logging.getLogger(__name__)


class Unreachable(DownloadError):
    """One link does not give the file; another one may."""

    code = "link"


class _Interrupted(Exception):
    """The line broke or the server is busy: worth another try."""


def hub_address(rest: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The URL and the token for ``hf:`` + ``rest``, as in ``hf://org/name@revision/file``."""
    parts = rest.removeprefix("//").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise Unreachable("write hf://org/name@revision/file")
    name, _, revision = parts[1].partition("@")
    endpoint = environ.get("HF_ENDPOINT") or "https://huggingface.co"
    path = f"{quote(parts[0])}/{quote(name)}/resolve/{quote(revision or 'main', safe='')}"
    return f"{endpoint.rstrip('/')}/{path}/{quote(parts[2])}", environ.get("HF_TOKEN", "")


def download(
    url: str,
    part: Path,
    size_bytes: int | None,
    report: Callable[[int], None],
    *,
    token: str = "",
) -> None:
    """Fills ``part`` from ``url``. Raises `Unreachable`, or `OSError` when it cannot be written.

    The bytes are not verified here. The token goes to the URL's own host only.
    """
    waits = list(RETRY_WAITS_SECONDS)
    while True:
        before = _size(part)
        try:
            return _one_try(url, part, size_bytes, report, token)
        except _Interrupted as error:
            if _size(part) - before >= PROGRESS_BYTES:
                waits = list(RETRY_WAITS_SECONDS)
            if not waits:
                raise Unreachable(str(error)) from error
            _log.info("%s: %s; trying again", urlsplit(url).hostname, error)
            time.sleep(waits.pop(0))


def _one_try(
    url: str, part: Path, size_bytes: int | None, report: Callable[[int], None], token: str
) -> None:
    limit = MAX_FILE_BYTES if size_bytes is None else size_bytes
    have = _size(part)
    validator = _validator_file(part)
    if size_bytes is not None and have == size_bytes:
        validator.unlink(missing_ok=True)
        return  # whole already; the hash will tell
    headers = _resume_headers(have, validator)
    try:
        response = _open(url, headers, token)
    except urllib.error.HTTPError as error:
        with error:
            _status_error(error.code, part, validator)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error
    with response:
        resumed = response.status == 206
        if not resumed:
            _remember_validator(validator, response.headers)
        _stream(response, part, have if resumed else 0, limit, report)
    validator.unlink(missing_ok=True)


def _stream(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    limit_bytes: int,
    report: Callable[[int], None],
) -> None:
    announced = response.headers.get("Content-Length")
    expected = start + int(announced) if announced and announced.isdigit() else None
    if (expected or 0) > limit_bytes:
        raise Unreachable(f"it is {expected} bytes, more than the expected {limit_bytes}")
    done = start
    with part.open("r+b" if start else "wb") as writer:
        writer.seek(start)
        while chunk := _read(response):
            done += len(chunk)
            if done > limit_bytes:
                raise Unreachable(f"it sends more than the expected {limit_bytes} bytes")
            writer.write(chunk)
            report(done)
        writer.flush()
        os.fsync(writer.fileno())
    if expected is not None and done < expected:
        raise _Interrupted(f"the line was cut after {done} of {expected} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error


def _status_error(status: int, part: Path, validator: Path) -> None:
    if status == 416:  # what we have does not fit what is there
        part.unlink(missing_ok=True)
        validator.unlink(missing_ok=True)
    if status in _PASSING_STATUS:
        raise _Interrupted(f"the server answered {status} {http.client.responses.get(status, '')}")
    extra = {401: " (is HF_TOKEN set?)", 403: " (its licence may have to be accepted)"}
    name = http.client.responses.get(status, "")
    raise Unreachable(f"the server answered {status} {name}{extra.get(status, '')}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return _reason(inner)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# ---------------------------------------------------------------- what a resumed try needs


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _resume_headers(have: int, validator: Path) -> dict[str, str]:
    """Only with If-Range: a file that was replaced meanwhile comes whole, not half and half."""
    if not have or not validator.exists():
        return {}
    return {"Range": f"bytes={have}-", "If-Range": validator.read_text("utf-8")}


def _remember_validator(validator: Path, headers: Message) -> None:
    etag = headers.get("ETag", "")
    chosen = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    if chosen:
        validator.write_text(chosen, "utf-8")
    else:
        validator.unlink(missing_ok=True)


# ---------------------------------------------------------------- urllib


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows web addresses only, never from https down to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("https", "http")
        if urlsplit(newurl).scheme not in allowed:
            raise Unreachable(f"it leads to {urlsplit(newurl).scheme or 'nowhere'}:, not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and request.host == req.host and req.type == request.type:
            token = req.unredirected_hdrs.get("Authorization")
            if token:  # the hub renames repositories with a redirect on its own host
                request.add_unredirected_header("Authorization", token)
        return request


def _open(url: str, headers: dict[str, str], token: str) -> http.client.HTTPResponse:
    everything = {"User-Agent": f"sdq/{__version__}", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(url, headers=everything)  # noqa: S310 - https and http only
    if token:
        # Unredirected: the hub sends us on to a storage host that must not see the token.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(_Redirects)
    response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    return response
