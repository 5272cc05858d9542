"""What a person at a terminal sees."""

import io
from collections.abc import Awaitable, Callable

import pytest
from PIL import Image

from sdq.protocol.messages import Generate
from sdq.testing.transport import ScriptedServer, draws, hits

Seen = Callable[..., Awaitable[tuple[str, int]]]


async def test_a_hit_is_one_line(seen: Seen) -> None:
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, "generate", "x", "-o", "out.png")
    assert code == 0
    assert text.count("out.png") == 1
    assert text.startswith("out.png  from the library  seed ")
    assert "\x1b" not in text


async def test_a_drawing_moves_and_leaves_one_line(seen: Seen) -> None:
    async with ScriptedServer(draws(steps=5, step_seconds=0.1)) as server:
        text, code = await seen(server, "generate", "[/nope] \x1b[31m", "-o", "out.png")
    assert code == 0
    assert "[/nope] \\x1b[31m" in text
    assert "of 5" in text
    assert text.count("out.png") == 1
    assert "\x1b[?25h" in text  # the cursor is back
    assert "made in" in text.splitlines()[-1]


@pytest.mark.parametrize("columns", [20, 200])
async def test_any_width(seen: Seen, columns: int) -> None:
    async with ScriptedServer(draws(steps=2, step_seconds=0.1)) as server:
        text, code = await seen(
            server, "generate", "a long prompt " * 20, "-o", "o.png", columns=columns
        )
    assert code == 0
    assert "o.png" in text


def red_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


async def test_a_picture_grows_below_its_line(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with ScriptedServer(draws(steps=6, step_seconds=0.1, preview=red_jpeg())) as server:
        text, code = await seen(server, "generate", "--preview", "x", "-o", "out.png")
        (asked,) = server.heard_of(Generate)
    assert code == 0
    assert isinstance(asked, Generate)
    assert asked.preview
    assert text.count("▀") >= 32 * 16
    assert "▀" not in text[text.rindex("out.png") :]
    assert "of 6" in text


async def test_ctrl_c_while_it_draws(seen: Seen) -> None:
    async with ScriptedServer(draws(steps=1_000, step_seconds=0.05)) as server:
        text, code = await seen(server, "generate", "x", "-o", "out.png", interrupt_at="of 1000")
    assert code == 130
    assert text.rstrip().endswith("cancelled: 0 of 1 written")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text


async def test_picture_bytes_do_not_go_to_a_terminal(seen: Seen) -> None:
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, "generate", "x", "-o", "-")
    assert code == 2
    assert "terminal" in text
