"""The client in ``docs/protocol.md``, taken from the page and run as a process of its own."""

import asyncio
import sys
from pathlib import Path

import pytest

from sdq.protocol.connection import ServerConnection
from sdq.protocol.messages import ClientMessage, ErrorReply
from sdq.protocol.stream import Stream

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    text = DOCUMENT.read_text("utf-8").split("```python\n")[1].split("```")[0]
    assert "sdq." not in text.replace("sdq server", "")
    path = tmp_path / "client.py"
    path.write_text(text, "utf-8")
    return path


async def run(program: Path, *arguments: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", program, *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, complaints = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), complaints.decode()


async def test_it_fetches_a_hit(program: Path, scripted_port: int, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    code, output, complaints = await run(program, "127.0.0.1", scripted_port, "hit it", out)
    assert (code, complaints) == (0, "")
    assert output.startswith(f"{out} is a hit with seed ")
    assert out.read_bytes().startswith(b"\x89PNG")


async def test_it_waits_for_a_new_one(program: Path, scripted_port: int, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    code, output, complaints = await run(program, "127.0.0.1", scripted_port, "Käse", out)
    assert (code, complaints) == (0, "")
    assert "running 10 of 20" in output
    assert "is a made with seed" in output
    assert out.exists()


async def test_it_shows_the_servers_error(program: Path, listen, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    async def refuse(stream: Stream[ClientMessage], connection: ServerConnection) -> None:
        await stream.receive(5)
        stream.send_error(ErrorReply(None, "busy", "no connection left", "try again later"))
        await stream.linger()

    out = tmp_path / "out.png"
    code, _, complaints = await run(program, "127.0.0.1", await listen(refuse), "x", out)
    assert code == 1
    assert "busy: no connection left (try again later)" in complaints
    assert not out.exists()


async def test_it_knows_when_it_talks_to_something_else(program: Path, tmp_path: Path) -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(http, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        code, _, complaints = await run(program, "127.0.0.1", port, "x", tmp_path / "out.png")
    assert code == 1
    assert "not an sdq server" in complaints
