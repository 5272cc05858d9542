"""`sdq top`: what a person sees at any size, what a program is told, how it ends and goes on."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pexpect
import pytest
from rich.console import Console

from sdq.cli.top_screen import view_of
from sdq.cli.top_view import Look
from sdq.protocol.activity_messages import (
    Activity,
    GetActivity,
    Happening,
    ModelTally,
    PersonLoad,
)
from sdq.protocol.messages import ClientMessage, GetStatus, Status, WorkerStatus
from sdq.testing.transport import ScriptedPeer, ScriptedServer

Sdq = Callable[..., Awaitable[Any]]
Seen = Callable[..., Awaitable[tuple[str, int]]]


def worker(number: int, note: str = "") -> WorkerStatus:
    return WorkerStatus(
        f"gpu-{number}", "host", ("shapes", "sdxl"), "cuda:0 float16", "drawing", 2, 0.05, 0.5,
        note, ("shapes",), 3 * 1024**3,
    )  # fmt: skip


def a_look(workers: int = 1, events: int = 3, people: int = 2) -> Look:
    status = Status(
        1, "sdq 9", 60.0, "ok", tuple(worker(number) for number in range(workers)), 4, 1, 2, 7,
        1024, 2048, 30.0,
    )  # fmt: skip
    happened = tuple(Happening("drawn", 1.0, "gpu-0", "shapes", "0.5 s") for _ in range(events))
    loads = tuple(PersonLoad(number == 0, 3 - number, 1) for number in range(people))
    return Look(
        status, Activity(1, 60.0, 30, 10, 1, (ModelTally("shapes", 9),), loads, 0, happened)
    )


def drawn(seen: Look, columns: int, lines: int, lost: float | None = None) -> list[str]:
    screen = Console(file=io.StringIO(), width=columns, height=lines)
    with screen.capture() as captured:
        screen.print(view_of(seen, columns, lines, lost))
    return captured.get().rstrip("\n").split("\n")


def test_at_80_by_24_all_of_it_is_there() -> None:
    shown = "\n".join(drawn(a_look(), 80, 24))
    for words in (
        "2 being drawn, 5 waiting", "75% of 40", "you: 1 being drawn, 3 waiting", "person 1: ",
        "gpu-0", "20.0", "3.0 GiB", "shapes* sdxl", "gpu-0 drew a picture of shapes in 0.5 s",
        "drawn: shapes 9, 1 failed", "q ends",
    ):  # fmt: skip
        assert words in shown, words


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 10), (40, 12), (200, 50), (60, 16)])
@pytest.mark.parametrize("workers", [0, 1, 40])
def test_it_never_is_larger_than_the_window(columns: int, lines: int, workers: int) -> None:
    shown = drawn(a_look(workers, events=20, people=9), columns, lines)
    assert len(shown) <= lines
    assert max(map(len, shown)) <= columns
    assert workers < 40 or any("more workers" in line for line in shown)


@pytest.mark.parametrize(("beyond", "hidden"), [(0, 6), (20, 26)])
def test_nobody_of_those_who_wait_is_left_uncounted(beyond: int, hidden: int) -> None:
    status, activity = a_look(people=9)
    crowd = msgspec.structs.replace(activity, more_people=beyond)
    shown = drawn(Look(status, crowd), 80, 24)
    assert f"and {hidden} more" in [line.strip() for line in shown]
    assert [line.startswith(("you:", "person ")) for line in shown].count(True) == 3


def test_a_lost_server_is_said_and_the_last_look_stays() -> None:
    shown = drawn(a_look(), 80, 24, lost=4.0)
    assert "lost the server 4.0 s ago, reconnecting" in shown[0]
    assert any("gpu-0" in line for line in shown)


async def answers(peer: ScriptedPeer, message: ClientMessage) -> None:
    status, activity = a_look()
    if isinstance(message, GetStatus | GetActivity):
        answer: Any = status if isinstance(message, GetStatus) else activity
        values = {name: getattr(answer, name) for name in answer.__struct_fields__}
        peer.send(type(answer)(**(values | {"request_id": message.request_id})))


async def test_once_for_programs_and_for_people(sdq: Sdq) -> None:
    async with ScriptedServer(answers) as server:
        told = await sdq("top", "--once", "--json", server=server.address)
        said = await sdq("top", "--once", server=server.address)
    assert (told.code, said.code) == (0, 0)
    found = json.loads(told.stdout)
    assert found["library"]["hit_rate"] == 0.75
    assert found["queue"] == {"queued": 4, "dispatched": 1, "running": 2}
    assert found["workers"][0]["worker_id"] == "gpu-0"
    assert "gpu-0" in said.stdout.decode()
    assert "\x1b" not in said.stdout.decode()


async def test_into_a_pipe_it_says_what_to_do(sdq: Sdq) -> None:
    outcome = await sdq("top")
    assert outcome.code == 2
    assert "--once" in outcome.stderr


async def test_nobody_there(sdq: Sdq, free_port: int) -> None:
    assert (await sdq("top", "--once", server=f"127.0.0.1:{free_port}")).code == 3


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
async def test_on_a_terminal_a_restart_is_survived_and_a_key_ends_it(key: str, code: int) -> None:
    server = ScriptedServer(answers)
    await server.start()
    env = {**os.environ, "TERM": "xterm", "SDQ_SERVER": server.address}
    child = pexpect.spawn(
        sys.executable, ["-m", "sdq", "top"], env=env, dimensions=(24, 80), encoding="utf-8",
        timeout=20,
    )  # fmt: skip
    try:
        await asyncio.to_thread(child.expect, "gpu-0")
        if key == "q":
            await server.stop()
            await asyncio.to_thread(child.expect, "lost the server")
            await server.start()
            await asyncio.to_thread(child.expect, "q ends")
        child.send(key)
        await asyncio.to_thread(child.expect, pexpect.EOF)
        assert "\x1b[?1049l" in child.before  # the former screen is back
        assert "\x1b[?25h" in child.before
        child.close()
        assert child.exitstatus == code
    finally:
        child.close(force=True)
        await server.stop()
