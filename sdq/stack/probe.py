"""Waits until a server answers and until a worker is ready, by asking the server."""

import asyncio
from pathlib import Path
from typing import TypeVar

from sdq.config import split_address
from sdq.errors import ConnectionFailed, UsageError
from sdq.protocol.connection import ClientConnection
from sdq.protocol.constants import DEFAULT_PORT
from sdq.protocol.messages import GetStatus, ServerMessage, Status, Welcome, WorkerStatus
from sdq.protocol.stream import Stream

POLL_SECONDS = 0.1

_ANSWER_TIMEOUT_SECONDS = 5.0
_READY_STATES = frozenset({"ready", "drawing"})
_Expected = TypeVar("_Expected")


async def ask_status(host: str, port: int) -> Status:
    """What the server says of itself, in five seconds at most. Raises `ConnectionFailed`."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            connection = ClientConnection()
            stream: Stream[ServerMessage] = Stream(connection, reader, writer)
            try:
                stream.send_bytes(connection.hello("sdq up"))
                await _receive(stream, Welcome)
                stream.send(GetStatus(request_id=1))
                return await _receive(stream, Status)
            finally:
                await stream.close()
    except OSError as error:  # TimeoutError is one
        raise ConnectionFailed(f"{host}:{port} does not answer: {error}") from error


async def _receive(stream: Stream[ServerMessage], kind: type[_Expected]) -> _Expected:
    message = await stream.receive()
    if not isinstance(message, kind):
        raise ConnectionFailed(f"{stream.peer} is no sdq server of this version")
    return message


async def wait_for_server(address_file: Path) -> None:
    """Until the server whose address stands in a file answers. Never gives up; cancel it."""
    while True:
        try:
            await ask_status(*read_address(address_file))
        except (ConnectionFailed, UsageError, OSError, UnicodeError):
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


def read_address(address_file: Path) -> tuple[str, int]:
    """Raises `OSError` and `UsageError`."""
    return split_address(address_file.read_text("utf-8").strip(), DEFAULT_PORT)


async def wait_for_worker(host: str, port: int) -> WorkerStatus:
    """The first worker that gets ready from now on. Never gives up; cancel it.

    A killed worker's last heartbeat lives on for seconds: what was there before counts only
    once it is heard of again.
    """
    heard: dict[str, float] | None = None
    while True:
        try:
            workers = (await ask_status(host, port)).workers
        except ConnectionFailed:
            workers = ()
        else:
            if heard is None:
                heard = {worker.worker_id: worker.seen_seconds_ago for worker in workers}
        for worker in workers:
            before = (heard or {}).get(worker.worker_id, float("inf"))
            if worker.seen_seconds_ago < before and worker.state in _READY_STATES:
                return worker
        await asyncio.sleep(POLL_SECONDS)
