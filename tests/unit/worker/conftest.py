"""Fixtures of the worker's tests: a spec, a manifest, bounded waiting, a web server to misuse."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdq.protocol.model import ModelManifest
from sdq.spec import ImageSpec
from sdq.testing.worker import fake_manifest


@pytest.fixture
def spec() -> ImageSpec:
    return ImageSpec(
        prompt="a cat",
        negative_prompt="",
        model="shapes",
        width=64,
        height=48,
        num_inference_steps=4,
        guidance_scale=4.0,
        scheduler="ddim",
        seed=7,
    )


@pytest.fixture
def manifest() -> ModelManifest:
    return fake_manifest()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object]], None]:
    """Polls a condition; fails after ten seconds."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return wait


class WebServer:
    """Serves ``body``; ``answers`` are taken first, one a request.

    An answer is a status, ``"cut"`` (half of the body, then the line is closed) or ``"elsewhere"``
    (a redirect to ``redirect_to``).
    """

    def __init__(self) -> None:
        self.body = b""
        self.etag = '"one"'
        self.answers: list[int | str] = []
        self.redirect_to = ""
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"
        self._thread = threading.Thread(target=self.httpd.serve_forever, args=(0.01,))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(headers)
        self.paths.append(handler.path)
        how = self.answers.pop(0) if self.answers else 200
        if how == "elsewhere":
            handler.send_response(302)
            handler.send_header("Location", self.redirect_to)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif isinstance(how, int) and how >= 400:
            handler.send_response(how)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            self._send_body(handler, headers, cut=how == "cut")

    def _send_body(
        self, handler: BaseHTTPRequestHandler, headers: dict[str, str], *, cut: bool
    ) -> None:
        start = 0
        if "range" in headers and headers.get("if-range") == self.etag:
            start = int(headers["range"].removeprefix("bytes=").rstrip("-"))
        data = self.body[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if cut else data)
        handler.close_connection = cut or handler.close_connection

    def __enter__(self) -> "WebServer":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.httpd.shutdown()
        self._thread.join()
        self.httpd.server_close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server
