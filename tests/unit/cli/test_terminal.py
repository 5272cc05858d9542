"""What a person at a terminal sees."""

import asyncio
import io
import os
import sys
from pathlib import Path

import pexpect
import pytest
from PIL import Image

from sdq.protocol.messages import Generate
from sdq.testing.transport import ScriptedServer, draws, hits

ROOT = Path(__file__).parents[3]


async def seen(
    server: ScriptedServer, folder: Path, *arguments: str, columns: int = 80, interrupt_at: str = ""
) -> tuple[str, int]:
    """All that was written to the terminal, and the exit code."""

    def run() -> tuple[str, int]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SDQ_SERVER": server.address}
        child = pexpect.spawn(
            sys.executable, ["-m", "sdq", *arguments], env={**env, "TERM": "xterm"},
            cwd=str(folder), dimensions=(24, columns), encoding="utf-8", timeout=20,
        )  # fmt: skip
        before = ""
        if interrupt_at:
            child.expect(interrupt_at)
            before = f"{child.before}{child.after}"
            child.sendintr()
        child.expect(pexpect.EOF)
        text = before + (child.before or "")
        child.close()
        assert child.exitstatus is not None
        return text, child.exitstatus

    return await asyncio.to_thread(run)


async def test_a_hit_is_one_line(tmp_path: Path) -> None:
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, tmp_path, "generate", "x", "-o", "out.png")
    assert code == 0
    assert text.count("out.png") == 1
    assert text.startswith("out.png  from the library  seed ")
    assert "\x1b" not in text


async def test_a_drawing_moves_and_leaves_one_line(tmp_path: Path) -> None:
    async with ScriptedServer(draws(steps=5, step_seconds=0.1)) as server:
        text, code = await seen(server, tmp_path, "generate", "[/nope] \x1b[31m", "-o", "out.png")
    assert code == 0
    assert "[/nope] \\x1b[31m" in text
    assert "of 5" in text
    assert text.count("out.png") == 1
    assert "\x1b[?25h" in text  # the cursor is back
    assert "made in" in text.splitlines()[-1]


@pytest.mark.parametrize("columns", [20, 200])
async def test_any_width(tmp_path: Path, columns: int) -> None:
    async with ScriptedServer(draws(steps=2, step_seconds=0.1)) as server:
        text, code = await seen(
            server, tmp_path, "generate", "a long prompt " * 20, "-o", "o.png", columns=columns
        )
    assert code == 0
    assert "o.png" in text


def red_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


async def test_a_picture_grows_below_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with ScriptedServer(draws(steps=6, step_seconds=0.1, preview=red_jpeg())) as server:
        text, code = await seen(server, tmp_path, "generate", "--preview", "x", "-o", "out.png")
        (asked,) = server.heard_of(Generate)
    assert code == 0
    assert isinstance(asked, Generate)
    assert asked.preview
    assert text.count("▀") >= 32 * 16
    assert "▀" not in text[text.rindex("out.png") :]
    assert "of 6" in text


async def test_ctrl_c_while_it_draws(tmp_path: Path) -> None:
    async with ScriptedServer(draws(steps=1_000, step_seconds=0.05)) as server:
        text, code = await seen(
            server, tmp_path, "generate", "x", "-o", "out.png", interrupt_at="of 1000"
        )
    assert code == 130
    assert text.rstrip().endswith("cancelled: 0 of 1 written")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text


async def test_picture_bytes_do_not_go_to_a_terminal(tmp_path: Path) -> None:
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, tmp_path, "generate", "x", "-o", "-")
    assert code == 2
    assert "terminal" in text
