"""``/metrics`` over HTTP, for Prometheus: as much of HTTP/1.1 (RFC 9112) as that needs.

Each connection gets one answer and is closed. Who is slow or wants too much is cut off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sdq.config import split_address
from sdq.errors import SdqError, StackError
from sdq.server.metrics import CONTENT_TYPE

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 7434
MAX_REQUEST_BYTES = 8 * 1024
MAX_CONNECTIONS = 16
TIMEOUT_SECONDS = 5.0

_PLAIN = "text/plain; charset=utf-8"


class MetricsPage:
    """Answers ``GET /metrics`` until it is closed."""

    def __init__(self, page: Callable[[], Awaitable[str]]) -> None:
        self._page = page
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def start(self, address: str) -> None:
        """Listens at ``HOST:PORT``; a port alone is one of this machine's own.

        Raises `UsageError` for what is no address, `StackError` when it is taken.
        """
        host, port = address_of(address)
        try:
            self._listener = await asyncio.start_server(
                self._connected, host, port, limit=MAX_REQUEST_BYTES, backlog=MAX_CONNECTIONS
            )
        except OSError as error:
            raise StackError(
                f"cannot listen on {host}:{port} for metrics: {error.strerror or error}",
                hint="choose another with --metrics, or stop what listens there",
            ) from error
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends all connections. Idempotent."""
        if self._listener is not None:
            self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if len(self._tasks) <= MAX_CONNECTIONS:
                    writer.write(await self._answer(reader))
                    await writer.drain()
        except asyncio.CancelledError:
            pass  # the server is closing; asyncio would log a cancelled callback as a defect
        except (OSError, TimeoutError, asyncio.LimitOverrunError, EOFError) as error:
            log.debug("metrics: a request was given up: %s", error)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", _PLAIN, "only GET is answered here\n")
        if path != b"/metrics":
            return _response("404 Not Found", _PLAIN, "there is /metrics here, and no more\n")
        try:
            body = await self._page()
        except SdqError as error:
            return _response("503 Service Unavailable", _PLAIN, f"{error.message}\n")
        return _response("200 OK", CONTENT_TYPE, body, has_body=method == b"GET")


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``HOST`` or ``PORT``. Raises `UsageError`."""
    if text.strip().isdigit():
        text = f"{LOOPBACK}:{text.strip()}"
    # split_address knows no port 0, which means any free one.
    host, colon, port = text.rpartition(":")
    if colon and port == "0":
        return split_address(host, 1)[0], 0
    return split_address(text, DEFAULT_PORT)


def _response(status: str, kind: str, body: str, *, has_body: bool = True) -> bytes:
    data = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode("ascii") + (data if has_body else b"")
