"""What a shell is offered: quickly, and nothing at all when nobody answers."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sdq.cli.completion_words import TIMEOUT_SECONDS
from sdq.cli.main import main
from sdq.protocol.catalog_messages import ListLoras, Loras
from sdq.protocol.job_messages import ListJobs
from sdq.protocol.messages import ClientMessage, ListModels, Models
from sdq.protocol.model import LoraManifest, ModelDefaults, ModelFile, ModelInfo, ModelLimits
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import ScriptedPeer, ScriptedServer, stays_silent

Sdq = Callable[..., Awaitable[Any]]


def model(model_id: str, *schedulers: str) -> ModelInfo:
    defaults = ModelDefaults(width=64, height=64, num_inference_steps=5, guidance_scale=2.0,
                             scheduler=schedulers[0])  # fmt: skip
    limits = ModelLimits(min_side=8, max_side=64, max_pixels=4096, max_steps=9,
                         schedulers=schedulers)  # fmt: skip
    return ModelInfo(model_id, "A title: $(rm) `x`", "MIT", defaults, limits, "f" * 64, 1, False, 0)


def lora(lora_id: str) -> LoraManifest:
    file = ModelFile("a.safetensors", 1, "0" * 64, ("https://example.org/a.safetensors",))
    return LoraManifest(lora_id, "Ink", "MIT", ("one",), file)


async def catalog(peer: ScriptedPeer, message: ClientMessage) -> None:
    if isinstance(message, ListModels):
        models = (model("one", "ddim", "euler"), model("two", "euler", "heun"))
        peer.send(Models(message.request_id, models))
    if isinstance(message, ListLoras):
        peer.send(Loras(message.request_id, (lora("ink"), lora("line"))))


async def offered(sdq: Sdq, line: str, server: str) -> list[str]:
    words = line.split(" ")
    env = {
        "_SDQ_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    outcome = await sdq(env=env, server=server)
    assert outcome.stderr == ""
    return outcome.stdout.decode().split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sdq gen", ["generate"]),
        ("sdq generate x --model ", ["one", "two"]),
        ("sdq generate x --model t", ["two"]),
        ("sdq generate x --scheduler ", ["ddim", "euler", "heun"]),
        ("sdq generate x --model two --scheduler ", ["euler", "heun"]),
        ("sdq generate x --lora l", ["line"]),
        ("sdq model default o", ["one"]),
    ],
)
async def test_names_of_the_catalog(sdq: Sdq, line: str, words: list[str]) -> None:
    async with ScriptedServer(catalog) as server:
        assert await offered(sdq, line, server.address) == words


async def test_the_server_that_the_line_names_is_asked(sdq: Sdq, free_port: int) -> None:
    async with ScriptedServer(catalog) as server:
        line = f"sdq generate x --server {server.address} --model "
        assert await offered(sdq, line, f"127.0.0.1:{free_port}") == ["one", "two"]


async def test_jobs(sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        await sdq("submit", "x", "-n", "2", server=server.address)
        assert sorted(await offered(sdq, "sdq attach ", server.address)) == ["job0", "job1"]
        assert await offered(sdq, "sdq cancel job1", server.address) == ["job1"]
        assert [one.mine for one in server.heard_of(ListJobs)] == [False, True]  # type: ignore[attr-defined]


async def test_what_stands_beside_a_word_cannot_be_a_command(sdq: Sdq) -> None:
    env = {"_SDQ_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "sdq generate x --model "}
    async with ScriptedServer(catalog) as server:
        outcome = await sdq(env=env, server=server.address)
    assert '"one":"A title rm x"' in outcome.stdout.decode()


async def test_fish(sdq: Sdq) -> None:
    env = {
        "_SDQ_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": "sdq generate x --model ",
    }
    async with ScriptedServer(catalog) as server:
        outcome = await sdq(env=env, server=server.address)
    assert outcome.lines == ["one\tA title rm x", "two\tA title rm x"]


async def test_nobody_there(sdq: Sdq, free_port: int) -> None:
    line = "sdq generate x --model "
    assert await offered(sdq, line, f"127.0.0.1:{free_port}") == []
    assert await offered(sdq, line, "no address at all") == []


async def test_a_silent_server_is_not_waited_for(sdq: Sdq) -> None:
    async with ScriptedServer(stays_silent()) as server:
        begun = time.monotonic()
        assert await offered(sdq, "sdq generate x --mod", server.address) == ["--model"]
        start_seconds = time.monotonic() - begun
        begun = time.monotonic()
        assert await offered(sdq, "sdq generate x --model ", server.address) == []
        assert time.monotonic() - begun < 3 * start_seconds + TIMEOUT_SECONDS + 1


async def test_a_port_that_says_nothing(sdq: Sdq) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        host, port = silent.sockets[0].getsockname()[:2]
        assert await offered(sdq, "sdq generate x --model ", f"{host}:{port}") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert f"_SDQ_COMPLETE=complete_{shell}" in script
    assert "sdq" in script


def test_the_script_in_a_real_bash(tmp_path: Path) -> None:
    (tmp_path / "sdq").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sdq "$@"\n')
    (tmp_path / "sdq").chmod(0o755)
    command = (
        f'PATH="{tmp_path}:$PATH"; source <(sdq completion bash); COMP_WORDS=(sdq canc);'
        'COMP_CWORD=1; _sdq_completion sdq; echo "${COMPREPLY[@]}"'
    )
    bash = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20)
    assert bash.stdout == "cancel\n", bash.stderr


def test_another_shell(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capfd.readouterr().err
