"""The commands that ask a server something: library, model, status, prune."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sdq.cli.main import main
from sdq.protocol.messages import (
    ClientMessage,
    ErrorReply,
    FetchPicture,
    FindPictures,
    FoundPictures,
    Generate,
    GetStatus,
    ListModels,
    Models,
    PruneLibrary,
    Removed,
    RemovePictures,
    Status,
    StoredPicture,
    WorkerStatus,
)
from sdq.protocol.model import ModelDefaults, ModelInfo, ModelLimits
from sdq.spec import SpecDraft
from sdq.testing.transport import ScriptedPeer, ScriptedServer, pictures_of, resolved

STATUS = Status(
    request_id=0,
    server="sdq 0.1.0",
    uptime_seconds=300.0,
    redis="ok",
    workers=(
        WorkerStatus("w1\x1b[31m", "gpu-box", ("shapes",), "cuda:0", "ready", 1, 0.0123, 0.5),
    ),
    queued=2,
    dispatched=1,
    running=1,
    pictures=3,
    library_bytes=2048,
    library_max_bytes=4096,
    retention_days=30.0,
)
MODEL = ModelInfo(
    model_id="shapes",
    title="Shapes",
    license="MIT",
    defaults=ModelDefaults(64, 64, 20, 4.0, "ddim"),
    limits=ModelLimits(8, 128, 128 * 128, 100, ("ddim",)),
    fingerprint="f" * 64,
    size_bytes=None,
    is_default=True,
    workers_online=1,
)
STORED = StoredPicture("a" * 64, resolved(SpecDraft(prompt="red\x1b[2J circle")), 810, 1.0, 2.0)


async def answer(peer: ScriptedPeer, message: ClientMessage) -> None:
    request_id = getattr(message, "request_id", 0)
    if isinstance(message, GetStatus):
        peer.send(msgspec.structs.replace(STATUS, request_id=request_id))
    elif isinstance(message, ListModels):
        peer.send(Models(request_id, (MODEL,)))
    elif isinstance(message, FindPictures):
        found = (STORED,) if message.words in ("", "red circle") else ()
        peer.send(FoundPictures(request_id, found))
    elif isinstance(message, FetchPicture) and message.key == "abcd":
        peer.send(pictures_of(Generate(request_id, SpecDraft(prompt="x")))[0])
    elif isinstance(message, RemovePictures):
        peer.send(Removed(request_id, len(message.keys), 2048))
    elif isinstance(message, PruneLibrary):
        peer.send(Removed(request_id, 5, 1024 * 1024))
    else:
        peer.send(ErrorReply(request_id, "usage", "no such picture", "sdq library list"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scripted server in a thread: the commands run in this one."""
    ready: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with ScriptedServer(answer) as server:
            ready.append(server.address)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield ready[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(
    address: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Ask:
    monkeypatch.setenv("SDQ_SERVER", address)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("command", [["status"], ["server", "status"]])
def test_status(ask: Ask, command: list[str]) -> None:
    code, out, _ = ask(*command)
    assert code == 0
    assert "1 being drawn, 3 waiting" in out
    assert "2.0 KiB of 4.0 KiB" in out
    assert "gpu-box" in out
    assert "12 ms" in out


def test_status_as_json(ask: Ask) -> None:
    _, out, _ = ask("status", "--json")
    assert json.loads(out)["workers"][0]["device"] == "cuda:0"
    assert "request_id" not in json.loads(out)


def test_models(ask: Ask) -> None:
    _, out, _ = ask("model", "list")
    assert "shapes (default)  1        64×64" in out
    _, out, _ = ask("model", "list", "--json")
    assert json.loads(out)["model_id"] == "shapes"


def test_library_list(ask: Ask) -> None:
    code, out, _ = ask("library", "list", "--limit", "3")
    assert code == 0
    assert "aaaaaaaaaaaa" in out
    _, out, _ = ask("library", "list", "--json")
    assert json.loads(out)["key"] == "a" * 64


def test_library_find(ask: Ask) -> None:
    assert "aaaaaaaaaaaa" in ask("library", "find", "red", "circle")[1]
    assert ask("library", "find", "green") == (0, "", "")


def test_library_rm(ask: Ask) -> None:
    assert ask("library", "rm", "AAAA", "bbbb")[1] == "2 pictures removed, 2.0 KiB freed\n"
    assert json.loads(ask("library", "rm", "aaaa", "--json")[1])["pictures"] == 1


def test_library_stats(ask: Ask) -> None:
    _, out, _ = ask("library", "stats")
    assert "3 pictures" in out
    assert "(50%)" in out
    assert json.loads(ask("library", "stats", "--json")[1])["retention_days"] == 30.0


def test_library_fetch(ask: Ask, tmp_path: Path) -> None:
    assert ask("library", "fetch", "abcd", "-o", "x.png")[:2] == (0, "x.png\n")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = ask("library", "fetch", "abce", "-o", "y.png")
    assert (code, out) == (2, "")
    assert "no such picture" in err


def test_prune(ask: Ask) -> None:
    assert ask("server", "prune")[1] == "5 pictures removed, 1.0 MiB freed\n"
    assert json.loads(ask("server", "prune", "--json")[1])["freed_bytes"] == 1024 * 1024


def test_nothing_from_outside_is_obeyed(ask: Ask) -> None:
    for command in (["status"], ["library", "list"], ["library", "list", "--json"]):
        assert "\x1b" not in ask(*command)[1]
