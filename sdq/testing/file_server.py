"""A web server of files with all the faults that a download meets on its way.

::

    with FileServer() as web:
        web.files["/model.safetensors"] = data
        web.faults["/model.safetensors"] = [Fault(status=503), Fault(cut_after_bytes=1000)]
        fetch(web.url + "/model.safetensors")
        web.requests      # what was asked: path, headers, bytes that were sent

Faults are taken one a request; when none is left the file is served as it should be.
"""

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong. Several may be set at once."""

    status: int = 0  # answered with this and no body
    retry_after: str = ""
    redirect_to: str = ""
    cut_after_bytes: int | None = None  # the line is closed in the middle of the body
    stall_seconds: float = 0.0  # silence after half of the body
    ignores_range: bool = False  # answers 200 with everything
    other_range: bool = False  # answers 206 with other bytes than were asked for
    body: bytes | None = None  # another file under the same name
    page: str = ""  # HTML in place of the file


@dataclass
class Request:
    """What was asked and how much was answered."""

    path: str
    headers: dict[str, str]
    sent_bytes: int = 0


@dataclass
class FileServer:
    """Listens on 127.0.0.1 while it is entered. Change its tables only between requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: dict[str, Fault] = field(default_factory=dict)  # when no other fault is left
    requests: list[Request] = field(default_factory=list)
    bytes_per_second: float = 0.0  # 0: as fast as it can
    validators: bool = True  # whether it sends an ETag

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._closing = threading.Event()
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()

    @property
    def sent_bytes(self) -> int:
        """Of all bodies so far."""
        return sum(request.sent_bytes for request in self.requests)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.path, headers)
        self.requests.append(request)
        waiting = self.faults.get(path)
        fault = waiting.pop(0) if waiting else self.always.get(path, Fault())
        try:
            self._send(handler, request, path, fault)
        except OSError:
            handler.close_connection = True  # the client hung up

    def _send(
        self, handler: BaseHTTPRequestHandler, request: Request, path: str, fault: Fault
    ) -> None:
        body = self.files.get(path) if fault.body is None else fault.body
        status = fault.status or (302 if fault.redirect_to else 0) or (404 if body is None else 0)
        if fault.page:
            self._send_page(handler, fault.page)
        elif status or body is None:
            handler.send_response(status)
            if fault.redirect_to:
                handler.send_header("Location", fault.redirect_to)
            if fault.retry_after:
                handler.send_header("Retry-After", fault.retry_after)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            self._send_file(handler, request, body, fault)

    def _send_page(self, handler: BaseHTTPRequestHandler, page: str) -> None:
        data = page.encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _send_file(
        self, handler: BaseHTTPRequestHandler, request: Request, body: bytes, fault: Fault
    ) -> None:
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        start = 0 if fault.ignores_range else _start_of(request.headers, etag, len(body))
        if start > len(body):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        told = max(0, start - 7) if fault.other_range else start
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - told))
        handler.send_header("Content-Type", "application/octet-stream")
        if self.validators:
            handler.send_header("ETag", etag)
        handler.end_headers()
        self._send_body(handler, request, body[told:], fault)

    def _send_body(
        self, handler: BaseHTTPRequestHandler, request: Request, data: bytes, fault: Fault
    ) -> None:
        end = len(data) if fault.cut_after_bytes is None else min(fault.cut_after_bytes, len(data))
        silent_at = end // 2 if fault.stall_seconds else end
        while request.sent_bytes < end:
            if request.sent_bytes == silent_at:
                self._closing.wait(fault.stall_seconds)
                silent_at = end
            chunk = data[request.sent_bytes : min(silent_at, request.sent_bytes + CHUNK_BYTES)]
            handler.wfile.write(chunk)
            request.sent_bytes += len(chunk)
            if self.bytes_per_second:
                time.sleep(len(chunk) / self.bytes_per_second)
        if end < len(data):
            handler.close_connection = True


def _start_of(headers: dict[str, str], etag: str, length: int) -> int:
    """Where the answer begins: RFC 9110, 13.1.5 and 14.2."""
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return 0
    return int(found[1])
