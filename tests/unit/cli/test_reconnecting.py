"""`sdq generate` and `sdq attach` when the server dies in the middle."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from sdq.protocol.job_messages import Attach
from sdq.protocol.messages import Cancel, CancelReply, ClientMessage, ErrorReply, Generate, Progress
from sdq.protocol.states import JobState
from sdq.spec import SpecDraft
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import ScriptedPeer, ScriptedServer, accepted, stays_silent

Sdq = Callable[..., Awaitable[Any]]
ROOT = Path(__file__).parents[3]
LEAVING = ErrorReply(None, "leaving", "the server is started again")


async def heard(server: ScriptedServer, kind: type[ClientMessage], count: int = 1) -> None:
    await server.heard_enough(lambda: len(server.heard_of(kind)) >= count, timeout_seconds=20)


async def all_under_way(table: ScriptedJobs, count: int) -> None:
    async with asyncio.timeout(20):
        while table.waiting < count:  # noqa: ASYNC110  bounded, and the table has no events
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("word", [None, LEAVING])
async def test_a_server_that_comes_back(
    start: Sdq, tmp_path: Path, word: ErrorReply | None
) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        running = await start("generate", "x", "-n", "5", "-o", "x.png", server=server.address)
        await all_under_way(table, 5)
        table.finish("job0", "job3")
        first = await running.process.stdout.readexactly(len("x-1.png\nx-4.png\n"))
        await server.stop(word=word)
        assert (await running.process.stderr.readline()).startswith(b"x-")
        table.finish("job1")
        await server.start()
        await heard(server, Attach)
        table.finish()
        outcome = await running.outcome()
    assert outcome.code == 0
    assert sorted(first.decode().split() + outcome.lines) == [f"x-{n}.png" for n in range(1, 6)]
    assert set(table.drawn.values()) == {1}
    assert outcome.stderr.count("lost the server, reconnecting") == 1
    assert outcome.stderr.count("connected again") == 1
    assert len(list(tmp_path.iterdir())) == 5


async def test_a_server_that_forgot_everything(start: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        running = await start("generate", "x", "-n", "2", "-o", "x.png", server=server.address)
        await all_under_way(table, 2)
        await server.stop()
        table.forget()
        await server.start()
        await all_under_way(table, 2)
        table.finish()
        outcome = await running.outcome()
    assert outcome.code == 0
    assert sorted(outcome.lines) == ["x-1.png", "x-2.png"]


async def test_a_server_that_never_comes_back(start: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        running = await start(
            "generate", "x", "-o", "x.png", server=server.address,
            env={"SDQ_CLIENT_RECONNECT_SECONDS": "0.5"},
        )  # fmt: skip
        await all_under_way(table, 1)
        await server.stop()
        outcome = await running.outcome()
    assert outcome.code == 3
    assert "did not come back within 0.5 s" in outcome.stderr
    assert "the jobs go on: `sdq attach job0` brings the pictures" in outcome.stderr


async def test_an_interrupt_while_reconnecting(start: Sdq) -> None:
    async with ScriptedServer(stays_silent()) as server:
        running = await start("generate", "x", "-o", "x.png", server=server.address)
        await heard(server, Generate)
        await server.stop()
        line = await asyncio.wait_for(running.process.stderr.readline(), 20)
        assert line == b"lost the server, reconnecting\n"
        running.interrupt()
        async with asyncio.timeout(3):
            outcome = await running.outcome()
    assert outcome.code == 130
    assert outcome.stderr.startswith("cancelled: 0 of 1 written, ")
    assert "`sdq jobs --mine`" in outcome.stderr


async def test_an_interrupt_after_reconnecting_takes_the_job_back(start: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        running = await start("generate", "x", "-o", "x.png", server=server.address)
        await all_under_way(table, 1)
        await server.stop()
        await server.start()
        await heard(server, Attach)
        running.interrupt()
        outcome = await running.outcome()
        (attach,), (cancel,) = server.heard_of(Attach), server.heard_of(Cancel)
    assert outcome.code == 130
    assert attach.resumes
    assert cancel.target == attach.request_id


async def test_an_interrupt_tells_what_was_kept(start: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, Generate):
            peer.send(accepted(message))
        elif isinstance(message, Cancel):
            peer.send(CancelReply(message.request_id, cancelled=2, kept=1))

    async with ScriptedServer(handle, answers_cancel=None) as server:
        running = await start("generate", "x", "-n", "3", "-o", "x.png", server=server.address)
        await heard(server, Generate)
        running.interrupt()
        outcome = await running.outcome()
    assert outcome.code == 130
    assert outcome.stderr == "cancelled: 0 of 3 written, 1 goes on for somebody else\n"


async def test_attach_goes_on_too(start: Sdq, tmp_path: Path) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x"), count=2)
        running = await start("attach", "job0", "job1", "-o", "x.png", server=server.address)
        await heard(server, Attach)
        await server.stop()
        await server.start()
        await heard(server, Attach, 2)
        await all_under_way(table, 2)
        table.finish()
        outcome = await running.outcome()
    assert outcome.code == 0
    assert outcome.lines == ["x-1.png", "x-2.png"]
    assert outcome.stderr.count("drawn meanwhile, waited ") == 2


async def test_what_a_person_sees(tmp_path: Path) -> None:
    table = ScriptedJobs()

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, Generate):
            peer.send(accepted(message))
            news = Progress(
                message.request_id, 0, "job0", JobState.QUEUED, ahead=3, eta_seconds=12.0
            )
            peer.send(news)
            await asyncio.sleep(0.5)
        await table.handle(peer, message)

    async with ScriptedServer(handle) as server:
        loop = asyncio.get_running_loop()

        def do(action: Awaitable[None]) -> None:
            asyncio.run_coroutine_threadsafe(action, loop).result(10)  # type: ignore[arg-type]

        def watch() -> tuple[str, int]:
            env = {**os.environ, "PYTHONPATH": str(ROOT), "SDQ_SERVER": server.address}
            child = pexpect.spawn(
                sys.executable, ["-m", "sdq", "generate", "x", "-o", "x.png"],
                env={**env, "TERM": "xterm"}, cwd=str(tmp_path), dimensions=(24, 80),
                encoding="utf-8", timeout=20,
            )  # fmt: skip
            child.expect("queued, 3 ahead, about 12 s")
            child.expect("step 1 of 20, 4.0 s left")
            do(server.stop())
            child.expect("reconnecting…")
            do(server.start())
            child.expect("step 1 of 20, 4.0 s left")
            loop.call_soon_threadsafe(table.finish)
            child.expect(pexpect.EOF)
            child.close()
            return child.before, child.exitstatus

        text, code = await asyncio.to_thread(watch)
    assert code == 0
    assert "made in" in text
    assert "reconnecting" not in text.splitlines()[-1]
