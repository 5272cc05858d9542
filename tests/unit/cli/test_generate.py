"""`sdq generate` as a process: streams, files, exit codes."""

import asyncio
import io
import json
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq import metadata
from sdq.protocol.messages import (
    Cancel,
    ClientMessage,
    ErrorReply,
    Failure,
    Generate,
    Origin,
    Progress,
)
from sdq.protocol.states import JobState
from sdq.spec import SpecDraft
from sdq.testing.transport import (
    ScriptedPeer,
    ScriptedServer,
    accepted,
    draws,
    hits,
    pictures_of,
    refuses,
    resolved,
    stays_silent,
)

Sdq = Callable[..., Awaitable[Any]]


async def heard_of_generate(server: ScriptedServer) -> None:
    await server.heard_enough(lambda: bool(server.heard_of(Generate)), timeout_seconds=20)


def only_request(server: ScriptedServer) -> Generate:
    (request,) = server.heard_of(Generate)
    assert isinstance(request, Generate)
    return request


# ------------------------------------------------------------------ streams and files


async def test_a_hit_says_so(sdq: Sdq, tmp_path: Path) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "a red circle", "-o", "out.png", server=server.address)
    assert outcome.code == 0
    assert outcome.lines == ["out.png"]
    assert outcome.stderr.startswith("out.png  from the library  seed ")
    provenance = metadata.read((tmp_path / "out.png").read_bytes())
    assert provenance is not None
    assert provenance.spec.prompt == "a red circle"


async def test_a_drawing(sdq: Sdq, tmp_path: Path) -> None:
    async with ScriptedServer(draws()) as server:
        outcome = await sdq("generate", "a red circle", server=server.address)
    assert outcome.code == 0
    assert outcome.lines == [path.name for path in tmp_path.glob("a-red-circle-????????.png")]
    assert "made in 0." in outcome.stderr
    assert "━" not in outcome.stderr


async def test_all_flags_arrive(sdq: Sdq) -> None:
    chosen = {
        "--model": "m",
        "--negative": "blurry",
        "--steps": "7",
        "--guidance": "2.5",
        "--width": "64",
        "--height": "72",
        "--scheduler": "euler",
        "--seed": "11",
        "--cache": "refresh",
        "-n": "2",
        "-o": "{seed}.png",
    }
    flags = ["--no-wait", *(word for pair in chosen.items() for word in pair)]
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "x", *flags, "--server", server.address)
    assert outcome.lines == ["11.png", "12.png"]
    request = only_request(server)
    assert request.draft == SpecDraft("x", "blurry", "m", 64, 72, 7, 2.5, "euler", 11)
    assert (request.count, request.cache.value, request.wait) == (2, "refresh", False)


async def test_size_and_new(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "x", "--size", "64x128", "--new", server=server.address)
    assert outcome.code == 0
    draft = only_request(server).draft
    assert (draft.width, draft.height) == (64, 128)
    assert draft.seed is not None


async def test_quiet(sdq: Sdq) -> None:
    async with ScriptedServer(draws()) as server:
        outcome = await sdq("generate", "x", "-o", "x.png", "--quiet", server=server.address)
    assert (outcome.lines, outcome.stderr) == (["x.png"], "")


async def test_json_lines(sdq: Sdq) -> None:
    async with ScriptedServer(draws()) as server:
        outcome = await sdq(
            "generate", "猫\x1b[31m", "-n", "2", "-o", "x.png", "--json", server=server.address
        )
    assert b"\x1b" not in outcome.stdout
    records = [json.loads(line) for line in outcome.lines]
    assert [record["path"] for record in records] == ["x-1.png", "x-2.png"]
    assert set(records[0]) == {"path", "key", "seed", "cache", "seconds", "spec"}
    assert records[0]["cache"] == "made"
    assert records[0]["spec"]["prompt"] == "猫\x1b[31m"
    assert records[0]["seed"] == records[0]["spec"]["seed"]
    assert len(records[0]["key"]) == 64
    assert outcome.stderr == ""


async def test_bytes_on_standard_output(sdq: Sdq) -> None:
    async with ScriptedServer(draws()) as server:
        outcome = await sdq("generate", "x", "-o", "-", server=server.address)
    assert outcome.code == 0
    assert Image.open(io.BytesIO(outcome.stdout)).size == (64, 64)
    assert "made in" in outcome.stderr


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WEBP")])
async def test_formats_by_ending(sdq: Sdq, tmp_path: Path, name: str, kind: str) -> None:
    async with ScriptedServer(hits()) as server:
        await sdq("generate", "x", "-o", name, server=server.address)
    data = (tmp_path / name).read_bytes()
    assert Image.open(io.BytesIO(data)).format == kind
    provenance = metadata.read(data)
    assert provenance is not None
    assert provenance.spec == resolved(SpecDraft(prompt="x"))


async def test_a_pattern_in_a_new_folder(sdq: Sdq, tmp_path: Path) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            "generate", "Big Cat!", "-n", "2", "-o", "p/{model}/{n:03}-{slug}.png",
            server=server.address,
        )  # fmt: skip
    assert outcome.lines == ["p/shapes/001-big-cat.png", "p/shapes/002-big-cat.png"]
    assert all((tmp_path / line).stat().st_size for line in outcome.lines)


# ------------------------------------------------------------------ prompts from stdin


async def test_prompts_from_standard_input(sdq: Sdq) -> None:
    async with ScriptedServer(draws()) as server:
        outcome = await sdq(
            "generate", "-", "-n", "2", "-o", "{n:02}-{slug}.png",
            text=b"one\n\ntwo\nthree\n", server=server.address,
        )  # fmt: skip
    assert sorted(outcome.lines) == [
        "01-one.png", "02-one.png", "03-two.png", "04-two.png", "05-three.png", "06-three.png",
    ]  # fmt: skip
    assert server.connections == 1


async def test_at_most_eight_prompts_at_once(sdq: Sdq) -> None:
    under_way: list[int] = [0, 0]

    async def slow(peer: ScriptedPeer, message: ClientMessage) -> None:
        under_way[0] += 1
        under_way[1] = max(under_way)
        await asyncio.sleep(0.01)
        under_way[0] -= 1
        await hits()(peer, message)

    text = b"".join(b"prompt %d\n" % number for number in range(40))
    async with ScriptedServer(slow) as server:
        outcome = await sdq("generate", "-", "-o", "o/", text=text, server=server.address)
    assert len(set(outcome.lines)) == 40
    assert under_way[1] <= 8


async def test_one_bad_prompt_does_not_stop_the_others(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            "generate", "-", "-o", "{n}.png", text=b"good\n" + b"x" * 2_001 + b"\nfine\n",
            server=server.address,
        )  # fmt: skip
    assert sorted(outcome.lines) == ["1.png", "3.png"]
    assert outcome.code == 1
    assert "error: line 2: the prompt has 2001 characters" in outcome.stderr
    assert "2 written, 1 failed" in outcome.stderr


async def test_the_same_prompt_twice_is_one_file(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "-", text=b"same\nsame\n", server=server.address)
    assert outcome.code == 0
    assert len(outcome.lines) == 2
    assert len(set(outcome.lines)) == 1


async def test_no_prompt_on_standard_input(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "-", text=b"\n \n", server=server.address)
    assert outcome.code == 2
    assert "no prompt on standard input" in outcome.stderr


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "-o", "out.gif"], "ends in no format"),
        (["x", "-o", "out"], "ends in no format"),
        (["x", "-o", "{what}.png"], "no field"),
        (["x", "-n", "2", "-o", "{slug}.png"], "one name"),
        (["x", "-n", "2", "-o", "-"], "one picture only"),
        (["x", "-o", "-", "--json"], "standard output"),
        (["x", "--seed", "1", "--new"], "--new"),
        (["x", "--size", "64"], "no size"),
        (["x", "--size", "64x64", "--width", "64"], "--size"),
        (["x", "--cache", "maybe"], "maybe"),
        (["x", "--steps", "many"], "many"),
        (["x", "-n", "0"], "0"),
        (["x", "--seed", "4294967296"], "4294967296"),
        (["x", "--server", "no/address"], "address of a server"),
        ([], "PROMPT"),
    ],
)
def test_wrong_usage_is_found_before_anything_is_sent(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from sdq.cli.main import main

    assert main(["generate", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        ("x" * 2_001, "2001 characters"),
        (b"caf\xe9", "not valid UTF-8"),
    ],
)
async def test_bad_prompts(sdq: Sdq, prompt: str | bytes, message: str) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", prompt, server=server.address)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert not server.heard_of(Generate)


async def test_bad_sizes(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "x", "--width", "100", server=server.address)
    assert outcome.code == 2
    assert "not a multiple of 8" in outcome.stderr
    assert "try 96 or 104" in outcome.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("unknown_model", 2),
        ("invalid_spec", 2),
        ("not_allowed", 4),
        ("not_in_library", 5),
        ("no_worker", 6),
        ("busy", 1),
        ("from_the_future", 1),
    ],
)
async def test_refusals_of_the_server(sdq: Sdq, code: str, exit_code: int) -> None:
    async with ScriptedServer(refuses(code, "no\x1b[2J way [/nope]", "try 'shapes'")) as server:
        outcome = await sdq("generate", "x", server=server.address)
    assert outcome.code == exit_code
    assert outcome.stderr == "error: no\\x1b[2J way [/nope]\n  hint: try 'shapes'\n"
    assert outcome.stdout == b""


async def test_some_failed_some_done(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        peer.send(pictures_of(message)[0])
        peer.send(Failure(message.request_id, 1, 0, "generation_failed", "out of memory"))

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", "-n", "2", "-o", "x.png", server=server.address)
    assert outcome.code == 1
    assert outcome.lines == ["x-1.png"]
    assert "error: picture 2: out of memory" in outcome.stderr


async def test_nothing_in_the_library(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(Failure(message.request_id, 0, 0, "not_in_library", "not there"))

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", "--cache", "only", server=server.address)
    assert outcome.code == 5


async def test_a_reason_for_waiting_is_told_once(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        for ahead in (None, None, 3):
            note = "3 ahead" if ahead else "no worker online holds 'shapes'"
            peer.send(
                Progress(message.request_id, 0, "job0", JobState.QUEUED, ahead=ahead, note=note)
            )
            await asyncio.sleep(0.05)
        peer.send(pictures_of(message, Origin.JOINED)[0])

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", "-o", "x.png", server=server.address)
    assert outcome.stderr.splitlines()[0] == "waiting: no worker online holds 'shapes'"
    assert len(outcome.stderr.splitlines()) == 2
    assert "made for somebody else too" in outcome.stderr


# ------------------------------------------------------------------ outputs that cannot be


async def test_an_existing_file_is_not_overwritten(sdq: Sdq, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_text("mine")
    async with ScriptedServer(hits()) as server:
        refused = await sdq("generate", "x", "-o", "out.png", server=server.address)
        assert refused.code == 2
        assert "out.png exists already" in refused.stderr
        assert (tmp_path / "out.png").read_text() == "mine"
        assert not server.heard_of(Generate)
        forced = await sdq("generate", "x", "-o", "out.png", "--force", server=server.address)
    assert forced.code == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


async def test_a_name_that_turns_out_to_be_taken_cancels(sdq: Sdq, tmp_path: Path) -> None:
    seed = resolved(SpecDraft(prompt="x")).seed
    (tmp_path / f"{seed}.png").write_text("mine")
    async with ScriptedServer(stays_silent()) as server:
        outcome = await sdq("generate", "x", "-o", "{seed}.png", server=server.address)
        assert outcome.code == 2
        assert "exists already" in outcome.stderr
        assert server.heard_of(Cancel)


async def test_an_unwritable_folder(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "x", "-o", "/proc/x/out.png", server=server.address)
    assert outcome.code == 2
    assert "cannot write /proc/x" in outcome.stderr
    assert server.connections == 0


async def test_a_disk_that_fills_up(sdq: Sdq, tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            "generate", "x", "-o", "out.png", server=server.address, before=small_files,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    assert outcome.code == 2
    assert "cannot write out.png: File too large" in outcome.stderr
    assert "make room" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


async def test_standard_output_that_is_full(sdq: Sdq) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with ScriptedServer(hits()) as server:
            outcome = await sdq("generate", "x", "-o", "-", server=server.address, stdout=full)
    finally:
        os.close(full)
    assert outcome.code == 2
    assert "cannot write standard output: No space left" in outcome.stderr


async def test_a_reader_that_left(sdq: Sdq) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        async with ScriptedServer(hits()) as server:
            outcome = await sdq(
                "generate", "x", "-o", "x.png", server=server.address, stdout=writing
            )
    finally:
        os.close(writing)
    assert outcome.code == 1
    assert outcome.stderr == ""


# ------------------------------------------------------------------ time, and servers that go


async def test_a_deadline(sdq: Sdq) -> None:
    async with ScriptedServer(stays_silent()) as server:
        outcome = await sdq("generate", "x", "--timeout", "0.3", server=server.address)
        assert server.heard_of(Cancel)
    assert outcome.code == 7
    assert "not done within 0.3 s" in outcome.stderr


async def test_a_server_that_hangs_up_in_the_middle(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        await peer.stream.drained()
        await asyncio.sleep(0.05)
        peer.hang_up()

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", server=server.address)
    assert outcome.code == 3
    assert "lost the server at 127.0.0.1" in outcome.stderr
    assert "run the same command again" in outcome.stderr


async def test_an_error_about_the_connection(sdq: Sdq) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        peer.send(ErrorReply(None, "not_allowed", "your token was withdrawn"))

    async with ScriptedServer(handle) as server:
        outcome = await sdq("generate", "x", server=server.address)
    assert outcome.code == 4


# ------------------------------------------------------------------ Ctrl-C


async def test_an_interrupt_cancels_the_request(start: Sdq, tmp_path: Path) -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        peer.send(pictures_of(message)[0])

    async with ScriptedServer(handle) as server:
        running = await start("generate", "x", "-n", "3", "-o", "x.png", server=server.address)
        await running.process.stdout.readexactly(len("x-1.png\n"))
        running.interrupt()
        outcome = await running.outcome()
        (cancel,) = server.heard_of(Cancel)
    assert isinstance(cancel, Cancel)
    assert cancel.target == only_request(server).request_id
    assert outcome.code == 130
    assert outcome.stderr.splitlines()[-1] == "cancelled: 1 of 3 written"
    assert (tmp_path / "x-1.png").exists()


async def test_a_second_interrupt_does_not_wait(start: Sdq) -> None:
    async with ScriptedServer(stays_silent(), answers_cancel=False) as server:
        running = await start("generate", "x", server=server.address)
        await heard_of_generate(server)
        running.interrupt()
        await server.heard_enough(lambda: bool(server.heard_of(Cancel)))
        running.interrupt()
        outcome = await running.outcome()
    assert outcome.code == 130
    assert outcome.stderr == ""  # it would have said what was cancelled


async def test_an_interrupt_while_prompts_are_read(start: Sdq) -> None:
    async with ScriptedServer(stays_silent()) as server:
        running = await start(
            "generate", "-", "-o", "o/", stdin=asyncio.subprocess.PIPE, server=server.address
        )
        running.process.stdin.write(b"one\ntwo\n")
        await server.heard_enough(lambda: len(server.heard_of(Generate)) == 2, 20)
        running.interrupt()
        outcome = await running.outcome()
        assert len(server.heard_of(Cancel)) == 2
    assert outcome.code == 130
    assert "cancelled: 0 of 2 written" in outcome.stderr


async def test_an_interrupt_while_connecting(start: Sdq) -> None:
    greeted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        greeted.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    running = await start("generate", "x", server=f"127.0.0.1:{port}")
    await asyncio.wait_for(greeted.wait(), 20)
    running.interrupt()
    outcome = await running.outcome()
    listener.close()
    await listener.wait_closed()
    assert outcome.code == 130
    assert "Traceback" not in outcome.stderr
