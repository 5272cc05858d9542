"""`sdq generate` when something is in the way: taken names, full disks, lost servers, Ctrl-C."""

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sdq.protocol.messages import (
    Cancel,
    ClientMessage,
    ErrorReply,
    Generate,
)
from sdq.spec import SpecDraft
from sdq.testing.transport import (
    ScriptedPeer,
    ScriptedServer,
    accepted,
    hits,
    pictures_of,
    resolved,
    stays_silent,
)

Sdq = Callable[..., Awaitable[Any]]

NO_PATIENCE = {"SDQ_CLIENT_RECONNECT_SECONDS": "0"}


async def heard_of_generate(server: ScriptedServer) -> None:
    await server.heard_enough(lambda: bool(server.heard_of(Generate)), timeout_seconds=20)


def only_request(server: ScriptedServer) -> Generate:
    (request,) = server.heard_of(Generate)
    assert isinstance(request, Generate)
    return request


# ------------------------------------------------------------------ outputs that cannot be


async def test_an_existing_file_is_not_overwritten(sdq: Sdq, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_text("mine")
    async with ScriptedServer(hits()) as server:
        refused = await sdq("generate", "x", "-o", "out.png", server=server.address)
        assert refused.code == 2
        assert "out.png exists already" in refused.stderr
        assert (tmp_path / "out.png").read_text() == "mine"
        assert not server.heard_of(Generate)
        forced = await sdq("generate", "x", "-o", "out.png", "--force", server=server.address)
    assert forced.code == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


async def test_a_name_that_turns_out_to_be_taken_cancels(sdq: Sdq, tmp_path: Path) -> None:
    seed = resolved(SpecDraft(prompt="x")).seed
    (tmp_path / f"{seed}.png").write_text("mine")
    async with ScriptedServer(stays_silent()) as server:
        outcome = await sdq("generate", "x", "-o", "{seed}.png", server=server.address)
        assert outcome.code == 2
        assert "exists already" in outcome.stderr
        assert server.heard_of(Cancel)


async def test_an_unwritable_folder(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "x", "-o", "/proc/x/out.png", server=server.address)
    assert outcome.code == 2
    assert "cannot write /proc/x" in outcome.stderr
    assert server.connections == 0


async def test_a_disk_that_fills_up(sdq: Sdq, tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            "generate", "x", "-o", "out.png", server=server.address, before=small_files,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    assert outcome.code == 2
    assert "cannot write out.png: File too large" in outcome.stderr
    assert "make room" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


async def test_standard_output_that_is_full(sdq: Sdq) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with ScriptedServer(hits()) as server:
            outcome = await sdq("generate", "x", "-o", "-", server=server.address, stdout=full)
    finally:
        os.close(full)
    assert outcome.code == 2
    assert "cannot write standard output: No space left" in outcome.stderr


async def test_a_reader_that_left(sdq: Sdq) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        async with ScriptedServer(hits()) as server:
            outcome = await sdq(
                "generate", "x", "-o", "x.png", server=server.address, stdout=writing
            )
    finally:
        os.close(writing)
    assert outcome.code == 1
    assert outcome.stderr == ""


# ------------------------------------------------------------------ time, and servers that go


async def test_a_deadline(sdq: Sdq) -> None:
    async with ScriptedServer(stays_silent()) as server:
        outcome = await sdq("generate", "x", "--timeout", "0.3", server=server.address)
        assert server.heard_of(Cancel)
    assert outcome.code == 7
    assert "not done within 0.3 s" in outcome.stderr


async def test_a_server_that_hangs_up_in_the_middle(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        await peer.stream.drained()
        await asyncio.sleep(0.05)
        peer.hang_up()

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", server=server.address, env=NO_PATIENCE)
    assert outcome.code == 3
    assert "lost the server at 127.0.0.1" in outcome.stderr
    assert "`sdq attach job0`" in outcome.stderr
    assert "run the same command again" in outcome.stderr


async def test_an_error_about_the_connection(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        peer.send(ErrorReply(None, "not_allowed", "your token was withdrawn"))

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", server=server.address)
    assert outcome.code == 4


# ------------------------------------------------------------------ Ctrl-C


async def test_an_interrupt_cancels_the_request(start: Sdq, tmp_path: Path) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        peer.send(pictures_of(message)[0])

    async with ScriptedServer(handle) as server:
        running = await start("generate", "x", "-n", "3", "-o", "x.png", server=server.address)
        await running.process.stdout.readexactly(len("x-1.png\n"))
        running.interrupt()
        outcome = await running.outcome()
        (cancel,) = server.heard_of(Cancel)
    assert isinstance(cancel, Cancel)
    assert cancel.target == only_request(server).request_id
    assert outcome.code == 130
    assert outcome.stderr.splitlines()[-1] == "cancelled: 1 of 3 written"
    assert (tmp_path / "x-1.png").exists()


async def test_a_second_interrupt_does_not_wait(start: Sdq) -> None:
    async with ScriptedServer(stays_silent(), answers_cancel=False) as server:
        running = await start("generate", "x", server=server.address)
        await heard_of_generate(server)
        running.interrupt()
        await server.heard_enough(lambda: bool(server.heard_of(Cancel)))
        running.interrupt()
        outcome = await running.outcome()
    assert outcome.code == 130
    assert outcome.stderr == ""  # it would have said what was cancelled


async def test_an_interrupt_while_prompts_are_read(start: Sdq) -> None:
    async with ScriptedServer(stays_silent()) as server:
        running = await start(
            "generate", "-", "-o", "o/", stdin=asyncio.subprocess.PIPE, server=server.address
        )
        running.process.stdin.write(b"one\ntwo\n")
        await server.heard_enough(lambda: len(server.heard_of(Generate)) == 2, 20)
        running.interrupt()
        outcome = await running.outcome()
        assert len(server.heard_of(Cancel)) == 2
    assert outcome.code == 130
    assert "cancelled: 0 of 2 written" in outcome.stderr


async def test_an_interrupt_while_connecting(start: Sdq) -> None:
    greeted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        greeted.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    running = await start("generate", "x", server=f"127.0.0.1:{port}")
    await asyncio.wait_for(greeted.wait(), 20)
    running.interrupt()
    outcome = await running.outcome()
    listener.close()
    await listener.wait_closed()
    assert outcome.code == 130
    assert "Traceback" not in outcome.stderr
