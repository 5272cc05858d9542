"""One address of the web into a part: resumed, retried, bounded, and believed in nothing.

The bytes are verified by whoever asked (`sdq.worker.fetch.mirrors`); here it is made sure that
they are of one version of the file and not more than expected.
"""

import http.client
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import IO, NamedTuple, NoReturn, Protocol
from urllib.parse import urlsplit

from sdq import __version__
from sdq.worker.fetch.drive import MAX_PAGE_BYTES, confirmed
from sdq.worker.fetch.faults import Halted, Interrupted, Unreachable
from sdq.worker.fetch.links import Address, origin_of

CHUNK_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 30.0
"""Without a byte for so long the line counts as broken."""

MAX_FILE_BYTES = 256 * 1024**3
"""For files whose publisher names no size."""

RETRY_WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Pauses between the tries of one link; a try that came `PROGRESS_BYTES` further than any before
it starts them anew."""

MAX_RETRY_AFTER_SECONDS = 60.0
PROGRESS_BYTES = 64 * 1024
MAX_PAGES = 2
_PASSING_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_TOKEN_HINTS = {401: " (is HF_TOKEN set?)", 403: " (its licence may have to be accepted)"}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_LENGTH = re.compile(r"[0-9]{1,18}")

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the bytes go: `sdq.worker.fetch.part.Part`, or what only measures them."""

    size_bytes: int

    def write(self, chunk: bytes) -> None: ...
    def restart(self) -> None: ...
    def validator_of(self, url: str) -> str: ...
    def remember(self, url: str, validator: str) -> None: ...


class Wanted(NamedTuple):
    """What is to be fetched, and who is told: ``on_bytes`` hears how much is there."""

    size_bytes: int | None
    on_bytes: Callable[[int], None]
    halt: threading.Event


def download(address: Address, part: Sink, wanted: Wanted) -> None:
    """Fills ``part``. Raises `Unreachable`, `Halted`, or `OSError` when it cannot be written."""
    waits, furthest_bytes = list(RETRY_WAITS_SECONDS), part.size_bytes
    while True:
        try:
            return _Try(address, part, wanted).run()
        except Interrupted as error:
            if part.size_bytes - furthest_bytes >= PROGRESS_BYTES:
                waits, furthest_bytes = list(RETRY_WAITS_SECONDS), part.size_bytes
            if not waits:
                raise Unreachable(str(error)) from error
            wait_seconds = max(waits.pop(0), min(error.after_seconds, MAX_RETRY_AFTER_SECONDS))
            _log.info("%s: %s; trying again", urlsplit(address.url).hostname, error)
            if wanted.halt.wait(wait_seconds):
                raise Halted from error


class _Try:
    """One request, or two when a page stands before the file."""

    def __init__(self, address: Address, part: Sink, wanted: Wanted) -> None:
        self._address = address
        self._part = part
        self._wanted = wanted

    def run(self) -> None:
        size_bytes, part = self._wanted.size_bytes, self._part
        if size_bytes is not None and part.size_bytes > size_bytes:
            part.restart()
        if size_bytes is not None and part.size_bytes == size_bytes:
            return  # whole already; the hash will tell
        address = self._address
        for _ in range(MAX_PAGES):
            with self._open(address) as response:
                if not _is_page(response):
                    self._take(response)
                    return
                address = address.at(confirmed(self._page(response), response.url))
        raise Unreachable("it answers with one page after the other instead of a file")

    def _open(self, address: Address) -> http.client.HTTPResponse:
        try:
            return _open(address, self._resume_headers())
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error)
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(_reason(error)) from error
        except ValueError as error:  # a redirect to something that is no address
            raise Unreachable(f"it leads nowhere: {error}") from error

    def _resume_headers(self) -> dict[str, str]:
        """With If-Range where we know the version: a file that was replaced comes whole, not half
        and half. Without (the bytes came from a mirror) the length is compared, and the hash."""
        have = self._part.size_bytes
        if not have:
            return {}
        validator = self._part.validator_of(self._address.url)
        if not validator and self._wanted.size_bytes is None:
            return {}
        headers = {"Range": f"bytes={have}-"}
        return headers | {"If-Range": validator} if validator else headers

    def _take(self, response: http.client.HTTPResponse) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unreachable("it sends the file in a packed form that was not asked for")
        part, size_bytes = self._part, self._wanted.size_bytes
        is_rest = response.status == 206
        total = self._check_range(response) if is_rest else _length(response)
        if total is not None and size_bytes is not None and total != size_bytes:
            raise Unreachable(f"its file has {total} bytes, {size_bytes} were expected")
        if not is_rest:  # and not before: what another mirror sent stays for the next one
            if part.size_bytes:
                part.restart()
            part.remember(self._address.url, _validator(response))
        self._stream(response, size_bytes or MAX_FILE_BYTES)
        if total is not None and part.size_bytes < total:
            raise Interrupted(f"the line was cut after {part.size_bytes} of {total} bytes")

    def _check_range(self, response: http.client.HTTPResponse) -> int | None:
        """The length of the whole file. A server that sends other bytes than it was asked for
        gets no second chance to be asked for a part."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != self._part.size_bytes:
            self._part.restart()
            raise Interrupted("the server sends another part of the file than it was asked for")
        return None if found[3] == "*" else int(found[3])

    def _stream(self, response: http.client.HTTPResponse, limit_bytes: int) -> None:
        part, wanted = self._part, self._wanted
        while chunk := self._read(response):
            if part.size_bytes + len(chunk) > limit_bytes:
                raise Unreachable(f"it sends more than the expected {limit_bytes} bytes")
            part.write(chunk)
            wanted.on_bytes(part.size_bytes)
            if wanted.halt.is_set():
                raise Halted

    @staticmethod
    def _page(response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read(MAX_PAGE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(_reason(error)) from error

    @staticmethod
    def _read(response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(_reason(error)) from error

    def _refused(self, error: urllib.error.HTTPError) -> NoReturn:
        status = error.code
        if status == 416:  # what we have does not fit what is there
            self._part.restart()
        name = http.client.responses.get(status, "")
        if status in _PASSING_STATUS:
            raise Interrupted(
                f"the server answered {status} {name}".rstrip(),
                _seconds_of(error.headers.get("Retry-After")),
            )
        if status in (301, 302, 303, 307, 308):
            scheme = urlsplit(error.headers.get("Location", "")).scheme
            if scheme not in ("", "http", "https"):
                raise Unreachable(f"it leads to {scheme[:20]}:, not followed")
            raise Unreachable("it redirects in circles, or too often")
        extra = _TOKEN_HINTS.get(status, "")
        raise Unreachable(f"the server answered {status} {name}".rstrip() + extra)


def _is_page(response: http.client.HTTPResponse) -> bool:
    kind = str(response.headers.get("Content-Type", ""))
    return kind.startswith("text/html") and "attachment" not in str(
        response.headers.get("Content-Disposition", "")
    )


def _length(response: http.client.HTTPResponse) -> int | None:
    announced = response.headers.get("Content-Length", "")
    return int(announced) if _LENGTH.fullmatch(announced) else None


def _validator(response: http.client.HTTPResponse) -> str:
    etag = str(response.headers.get("ETag", ""))
    if etag and not etag.startswith("W/"):
        return etag
    return str(response.headers.get("Last-Modified", ""))


def _seconds_of(retry_after: str | None) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3)."""
    if not retry_after:
        return 0.0
    if retry_after.isdecimal():
        return float(retry_after[:6])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte within {TIMEOUT_SECONDS:g} s"
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return _reason(inner)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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
        here = origin_of(req.full_url)  # ``req.type`` and ``req.host`` are a proxy's, behind one
        allowed = ("https",) if here[0] == "https" else ("https", "http")
        if urlsplit(newurl).scheme not in allowed:
            raise Unreachable(f"it leads to {urlsplit(newurl).scheme or 'nowhere'}:, not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and origin_of(newurl) == here:
            token = req.unredirected_hdrs.get("Authorization")
            if token:  # the hub renames repositories with a redirect on its own host
                request.add_unredirected_header("Authorization", token)
        return request


def read_document(address: Address, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """A small answer as a whole, with its headers in lower case. Raises `Unreachable`."""
    try:
        with _open(address, {}) as response:
            data = response.read(max_bytes + 1)
    except urllib.error.HTTPError as error:
        with error:
            name = http.client.responses.get(error.code, "")
            extra = _TOKEN_HINTS.get(error.code, "")
            raise Unreachable(f"the server answered {error.code} {name}{extra}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(_reason(error)) from error
    if len(data) > max_bytes:
        raise Unreachable(f"the answer has more than {max_bytes} bytes")
    return data, {name.lower(): value for name, value in response.headers.items()}


def _open(address: Address, headers: dict[str, str]) -> http.client.HTTPResponse:
    """``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` are respected: urllib does so itself."""
    everything = {"User-Agent": f"sdq/{__version__}", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(address.url, headers=everything)  # noqa: S310 - web only
    if address.token:
        # Unredirected: the hub sends us on to a storage host that must not see the token.
        request.add_unredirected_header("Authorization", f"Bearer {address.token}")
    opener = urllib.request.build_opener(_Redirects)
    response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    return response
