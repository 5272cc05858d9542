"""Pictures at a terminal, checked by the bytes that it is sent; its title and its bell."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from PIL import Image

from sdq.protocol.messages import Attach, ClientMessage, Failure, Generate
from sdq.testing.pictures_sent import (
    PLACEHOLDER,
    KittyTerminal,
    block_pixels,
    iterm2_pictures,
    kitty_pictures,
    sixel_pictures,
)
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import ScriptedPeer, ScriptedServer, draws, hits, pictures_of

Seen = Callable[..., Awaitable[tuple[str, int]]]
Sdq = Callable[..., Awaitable[Any]]

COLOURS = {"NO_COLOR": "", "COLORTERM": "truecolor"}
KITTY = COLOURS | {"TERM": "xterm-kitty"}
TERMINALS = {
    "kitty": (KITTY, lambda text: kitty_pictures(text.encode())),
    "iterm2": (COLOURS | {"LC_TERMINAL": "iTerm2"}, lambda text: iterm2_pictures(text.encode())),
    "sixel": (COLOURS | {"TERM": "foot"}, lambda text: sixel_pictures(text.encode())),
}
PREVIEW_COLOUR = (200, 30, 30)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), PREVIEW_COLOUR).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def sent_by_server(server: ScriptedServer) -> Image.Image:
    (request,) = server.heard_of(Generate)
    assert isinstance(request, Generate)
    (picture,) = pictures_of(request)
    return Image.open(io.BytesIO(picture.image)).convert("RGB")


@pytest.mark.parametrize("name", TERMINALS)
async def test_show(seen: Seen, name: str) -> None:
    env, decode = TERMINALS[name]
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, "generate", "x", "-o", "out.png", "--show", env=env)
        wanted = sent_by_server(server)
    assert code == 0
    assert text.startswith("out.png  from the library")
    (sent,) = decode(text)
    for corner in ((0, 0), (sent.image.width - 1, sent.image.height - 1)):
        got, want = sent.image.getpixel(corner), wanted.getpixel((0, 0))
        assert isinstance(got, tuple)
        assert isinstance(want, tuple)
        assert all(abs(one - other) <= 3 for one, other in zip(got, want, strict=True))


async def test_show_in_letters(seen: Seen) -> None:
    env = COLOURS | {"TERM": "xterm", "SDQ_CLIENT_PICTURES": "blocks"}
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, "generate", "x", "-o", "out.png", "--show", env=env)
        wanted = sent_by_server(server).getpixel((0, 0))
    assert code == 0
    assert block_pixels(text)[0] == (wanted, wanted)


@pytest.mark.parametrize(
    "env",
    [KITTY | {"NO_COLOR": "1"}, {"TERM": "dumb"}, KITTY | {"SDQ_CLIENT_PICTURES": "off"}],
)
async def test_show_where_nothing_can_be_shown(seen: Seen, env: dict[str, str]) -> None:
    async with ScriptedServer(hits()) as server:
        text, code = await seen(server, "generate", "x", "-o", "out.png", "--show", env=env)
    assert code == 0
    assert text.count("\n") == 1
    assert "\x1b" not in text


async def test_show_into_a_pipe(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            "generate", "x", "-o", "out.png", "--show", server=server.address, env=KITTY
        )
    assert outcome.code == 0
    assert outcome.stdout == b"out.png\n"
    assert "\x1b" not in outcome.stderr


async def test_show_of_jobs(seen: Seen) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        await seen(server, "submit", "x")
        table.finish("job0")
        text, code = await seen(server, "attach", "job0", "-o", "out.png", "--show", env=KITTY)
        assert server.heard_of(Attach)
    assert code == 0
    assert len(kitty_pictures(text.encode())) == 1


async def test_previews_in_kitty_replace_one_another(seen: Seen) -> None:
    handler = draws(steps=6, step_seconds=0.15, preview=jpeg())
    async with ScriptedServer(handler) as server:
        text, code = await seen(
            server, "generate", "x", "-o", "out.png", "--preview", env=KITTY, resize_at="of 6"
        )
    assert code == 0
    terminal = KittyTerminal().feed(text.encode())
    assert len(terminal.sent) >= 2
    assert {sent.keys["U"] for sent in terminal.sent} == {"1"}
    (number,) = {int(sent.keys["i"]) for sent in terminal.sent}
    assert set(terminal.deleted) == {number}
    assert text.rindex(f"i={number}") > text.rindex(PLACEHOLDER)  # and it is forgotten at the end
    red = terminal.sent[-1].image.getpixel((5, 5))
    assert isinstance(red, tuple)
    assert all(abs(one - other) < 5 for one, other in zip(red, PREVIEW_COLOUR, strict=True))
    assert "▀" not in text


async def test_ctrl_c_beside_a_preview_leaves_nothing(seen: Seen) -> None:
    handler = draws(steps=1_000, step_seconds=0.05, preview=jpeg())
    async with ScriptedServer(handler) as server:
        text, code = await seen(
            server, "generate", "x", "-o", "out.png", "--preview", env=KITTY,
            interrupt_at=PLACEHOLDER,
        )  # fmt: skip
    assert code == 130
    terminal = KittyTerminal().feed(text.encode())
    assert terminal.deleted[-1:] == [int(terminal.sent[-1].keys["i"])]
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.rstrip().endswith("cancelled: 0 of 1 written")


async def test_the_title_tells_the_steps_and_the_bell_the_end(seen: Seen) -> None:
    async with ScriptedServer(draws(steps=3, step_seconds=0.02)) as server:
        text, code = await seen(
            server, "generate", "x", "-o", "out.png", "--bell",
            env={"SDQ_CLIENT_TITLE": "true"},
        )  # fmt: skip
    assert code == 0
    assert text.count("\x1b[22;0t") == text.count("\x1b[23;0t") == 1
    assert "\x1b]0;sdq: step 3 of 3\x07" in text
    assert text.index("\x1b[22;0t") < text.index("\x1b]0;") < text.index("\x1b[23;0t")
    assert text.rstrip("\r\n").endswith("\a")


async def test_neither_title_nor_bell_unless_asked_for(seen: Seen, sdq: Sdq) -> None:
    async with ScriptedServer(draws()) as server:
        text, _ = await seen(server, "generate", "x", "-o", "out.png")
        piped = await sdq("generate", "x", "-o", "2.png", "--bell", server=server.address)
    assert "\a" not in text
    assert "\a" not in piped.stderr


def fails_at_first(times: int, code: str) -> Any:
    """Fails the second of the pictures, so often; the others come."""
    left = [times]

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        for picture in pictures_of(message):
            if picture.index == 1 and left[0]:
                left[0] -= 1
                failure = Failure(message.request_id, 1, picture.remaining, code, "no luck")
                peer.send(failure)
            else:
                peer.send(picture)

    return handle


async def test_retry_asks_for_what_failed_alone(sdq: Sdq) -> None:
    async with ScriptedServer(fails_at_first(2, "generation_failed")) as server:
        outcome = await sdq(
            "generate", "x", "-n", "3", "-o", "o.png", "--retry", "2", server=server.address
        )
        asked = [(one.first_index, one.count) for one in server.heard_of(Generate)]  # type: ignore[attr-defined]
    assert outcome.code == 0, outcome.stderr
    assert asked == [(0, 3), (1, 1), (1, 1)]
    assert sorted(outcome.lines) == ["o-1.png", "o-2.png", "o-3.png"]
    assert outcome.stderr.count("no luck; asking again") == 2
    assert "error" not in outcome.stderr


@pytest.mark.parametrize(
    ("code", "retries", "asked"),
    [("generation_failed", "1", 2), ("generation_failed", "0", 1), ("invalid_spec", "3", 1)],
)
async def test_retry_has_an_end(sdq: Sdq, code: str, retries: str, asked: int) -> None:
    async with ScriptedServer(fails_at_first(9, code)) as server:
        outcome = await sdq(
            "generate", "x", "-n", "2", "-o", "o.png", "--retry", retries, server=server.address
        )
        assert len(server.heard_of(Generate)) == asked
    assert outcome.code == 1
    assert "1 written, 1 failed" in outcome.stderr


async def test_retry_looks_for_a_server(sdq: Sdq, free_port: int) -> None:
    outcome = await sdq("generate", "x", "--retry", "1", server=f"127.0.0.1:{free_port}")
    assert outcome.code == 3
    assert "nothing listens there; asking again in 0.5 s" in outcome.stderr
