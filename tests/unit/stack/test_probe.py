"""Asking a server for its state: strangers, silence, and workers that only seem to be there."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sdq.errors import ConnectionFailed
from sdq.protocol.messages import Status, WorkerStatus
from sdq.stack import probe
from sdq.stack.probe import ask_status, read_address, wait_for_server, wait_for_worker


def worker(name: str, state: str, seen_seconds_ago: float) -> WorkerStatus:
    return WorkerStatus(name, "host", ("shapes",), "cpu", state, 0, None, seen_seconds_ago)


def status(*workers: WorkerStatus) -> Status:
    return Status(1, "s", 0.0, "ok", workers, 0, 0, 0, 0, 0, 0, 30.0)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Scripts what the server says; an exception is raised. The last answer stays."""

    def script(*given: Status | Exception) -> None:
        left = list(given)

        async def answer(_host: str, _port: int) -> Status:
            said = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(said, Exception):
                raise said
            return said

        monkeypatch.setattr(probe, "ask_status", answer)
        monkeypatch.setattr(probe, "POLL_SECONDS", 0.001)

    return script


async def within(waiting: Awaitable[WorkerStatus], seconds: float = 5) -> WorkerStatus:
    async with asyncio.timeout(seconds):
        return await waiting


async def test_a_new_worker_counts_once_it_is_ready(answers: Callable[..., None]) -> None:
    answers(
        status(),
        ConnectionFailed("away"),
        status(worker("new", "loading", 0.1)),
        status(worker("new", "drawing", 0.2)),
    )

    assert (await within(wait_for_worker("h", 1))).state == "drawing"


async def test_the_last_words_of_a_dead_worker_do_not_count(answers: Callable[..., None]) -> None:
    dead = [status(worker("same", "ready", age)) for age in (3.0, 3.1, 7.9)]
    answers(*dead)
    with pytest.raises(TimeoutError):
        await within(wait_for_worker("h", 1), 0.1)

    answers(*dead, status(worker("same", "loading", 0.1)), status(worker("same", "ready", 0.2)))
    assert (await within(wait_for_worker("h", 1))).seen_seconds_ago == 0.2


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_stranger_on_the_port_is_no_server(greeting: bytes) -> None:
    async def stranger(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(stranger, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed):
            await ask_status("127.0.0.1", port)


async def test_silence_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_ANSWER_TIMEOUT_SECONDS", 0.1)
    over = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed, match="does not answer"):
            await ask_status("127.0.0.1", port)
        over.set()
        await asyncio.sleep(0.05)


async def test_waits_for_the_address_and_the_answer(
    answers: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "address"
    answers(ConnectionFailed("starting"), status())
    waiting = asyncio.create_task(wait_for_server(file))
    await asyncio.sleep(0.02)
    file.write_text("not an address:")
    await asyncio.sleep(0.02)
    assert not waiting.done()

    file.write_text("[::1]:7433\n")
    async with asyncio.timeout(5):
        await waiting
    assert read_address(file) == ("::1", 7433)
