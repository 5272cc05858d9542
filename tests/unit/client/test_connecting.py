"""The way in for scripts: which server it is, and that it is left."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from sdq.client import connect
from sdq.errors import ConnectionFailed, UsageError
from sdq.testing.transport import ScriptedServer, hits


@pytest.mark.parametrize("way", ["argument", "environment", "file"])
async def test_the_server_that_is_meant(
    way: str, sdq_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedServer(hits()) as server:
        if way == "environment":
            monkeypatch.setenv("SDQ_SERVER", server.address)
        elif way == "file":
            sdq_home.mkdir()
            (sdq_home / "config.toml").write_text(f'[client]\nserver = "{server.address}"\n')
        async with connect(server.address if way == "argument" else None) as client:
            assert (await client.generate("x")).origin == "hit"
        with pytest.raises(ConnectionFailed, match="closed"):
            await client.generate("x")


async def test_it_can_be_awaited_too() -> None:
    async with ScriptedServer(hits()) as server:
        client = await connect(server.address)
        assert [one.index async for one in client.pictures("x", count=2)] == [0, 1]
        await client.close()


async def test_what_is_no_server(free_port: int) -> None:
    with pytest.raises(UsageError, match="not the address"):
        await connect("two words")
    with pytest.raises(ConnectionFailed, match="nothing listens there"):
        async with asyncio.timeout(10), connect(f"127.0.0.1:{free_port}"):
            pass


def test_what_an_import_costs() -> None:
    script = (
        "import sys, sdq.client; before = set(sys.modules); from sdq.client import connect\n"
        "from sdq.client import Picture\n"
        "print('asyncio' in before, sorted({'PIL', 'typer', 'rich', 'celery'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "False []\n"
