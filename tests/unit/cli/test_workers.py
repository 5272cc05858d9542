"""`sdq workers` and `sdq worker drain`."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sdq.protocol.job_messages import Draining, DrainWorker
from sdq.protocol.messages import ClientMessage, ErrorReply, GetStatus, Status, WorkerStatus
from sdq.testing.transport import Handler, ScriptedPeer, ScriptedServer

Sdq = Callable[..., Awaitable[Any]]

WORKER = WorkerStatus("w1", "gpu-box", ("shapes",), "cuda:0", "drawing", 2, 0.0123, 0.5)
STATUS = Status(
    request_id=0,
    server="sdq 0.1.0",
    uptime_seconds=300.0,
    redis="ok",
    workers=(WORKER,),
    queued=0,
    dispatched=0,
    running=0,
    pictures=0,
    library_bytes=0,
    library_max_bytes=0,
    retention_days=30.0,
)


def looks(*states: str) -> Handler:
    """The state of the worker at each look; ``gone`` is offline."""
    left = list(states)

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, DrainWorker):
            if message.worker_id == "w1":
                peer.send(Draining(message.request_id, "w1", active=2))
            else:
                peer.send(ErrorReply(message.request_id, "unknown_worker", "no worker 'w2'"))
        elif isinstance(message, GetStatus):
            state = left.pop(0) if len(left) > 1 else left[0]
            worker = msgspec.structs.replace(WORKER, state=state, note="broken\x1b[31m canary")
            if state != "broken":
                worker = msgspec.structs.replace(worker, note="")
            workers = () if state == "gone" else (worker,)
            peer.send(
                msgspec.structs.replace(STATUS, request_id=message.request_id, workers=workers)
            )

    return handle


async def test_the_table(sdq: Sdq) -> None:
    async with ScriptedServer(looks("drawing")) as server:
        outcome = await sdq("workers", server=server.address)
        records = await sdq("workers", "--json", server=server.address)
    titles, row = outcome.lines
    assert titles.split()[:4] == ["NAME", "HOST", "DEVICE", "STATE"]
    assert "NOTE" not in titles
    assert "IN MEMORY" not in titles
    assert row.split()[:6] == ["w1", "gpu-box", "cuda:0", "drawing", "2", "12"]
    assert json.loads(records.stdout)["worker_id"] == "w1"


async def test_a_broken_worker_says_why(sdq: Sdq) -> None:
    async with ScriptedServer(looks("broken")) as server:
        outcome = await sdq("workers", server=server.address)
        status = await sdq("status", server=server.address)
    assert outcome.lines[0].endswith("NOTE")
    assert "broken\\x1b[31m canary" in outcome.lines[1]
    assert "broken\\x1b[31m canary" in status.lines[-1]


async def test_which_of_several_models_are_in_memory(sdq: Sdq) -> None:
    both = msgspec.structs.replace(WORKER, models=("sdxl", "shapes"), loaded=("shapes",))
    none = msgspec.structs.replace(both, worker_id="w2", loaded=())
    workers = (both, none, msgspec.structs.replace(WORKER, worker_id="w3", loaded=("shapes",)))

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, GetStatus):
            peer.send(
                msgspec.structs.replace(STATUS, request_id=message.request_id, workers=workers)
            )

    async with ScriptedServer(handle) as server:
        outcome = await sdq("workers", server=server.address)
        records = await sdq("workers", "--json", server=server.address)
    titles, *rows = outcome.lines
    models, memory = titles.index("MODELS"), titles.index("IN MEMORY")
    assert [row[models:memory].strip() for row in rows] == ["sdxl shapes", "sdxl shapes", "shapes"]
    assert [row[memory:].strip() for row in rows] == ["shapes", "-", "shapes"]
    found = [json.loads(line)["loaded"] for line in records.lines]
    assert found == [["shapes"], [], ["shapes"]]


async def test_none_online(sdq: Sdq) -> None:
    async with ScriptedServer(looks("gone")) as server:
        outcome = await sdq("workers", server=server.address)
    assert (outcome.code, outcome.stdout) == (0, b"")


async def test_drain_says_that_it_was_told(sdq: Sdq) -> None:
    async with ScriptedServer(looks("drawing")) as server:
        outcome = await sdq("worker", "drain", "w1", server=server.address)
    assert outcome.code == 0
    assert outcome.stderr == (
        "w1 was told: it finishes what it has begun of 2 pictures in hand, hands the rest back "
        "and ends\n"
    )


async def test_drain_waits_until_it_is_gone(sdq: Sdq) -> None:
    async with ScriptedServer(looks("drawing", "drawing", "stopping", "gone")) as server:
        outcome = await sdq("worker", "drain", "w1", "--wait", server=server.address)
        assert len(server.heard_of(GetStatus)) == 4
    assert outcome.code == 0
    assert outcome.stderr.splitlines()[-1] == "w1 has ended"


async def test_drain_of_a_worker_that_is_started_again_at_once(sdq: Sdq) -> None:
    async with ScriptedServer(looks("drawing", "stopping", "loading")) as server:
        outcome = await sdq("worker", "drain", "w1", "--wait", "--json", server=server.address)
    assert outcome.code == 0
    assert json.loads(outcome.stdout) == {"worker_id": "w1", "active": 2, "has_ended": True}


async def test_drain_of_nobody(sdq: Sdq) -> None:
    async with ScriptedServer(looks("drawing")) as server:
        outcome = await sdq("worker", "drain", "w2", server=server.address)
    assert outcome.code == 2
    assert "no worker 'w2'" in outcome.stderr


async def test_drain_of_what_is_no_name(sdq: Sdq) -> None:
    async with ScriptedServer(looks("drawing")) as server:
        outcome = await sdq("worker", "drain", "w1\x1b[31m", server=server.address)
        assert not server.heard_of(DrainWorker)
    assert outcome.code == 2
    assert "is no name of a worker" in outcome.stderr
    assert "hint: `sdq workers` shows them" in outcome.stderr
