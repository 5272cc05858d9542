"""`sdq generate` as a process: streams, files, exit codes."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq import metadata
from sdq.protocol.messages import (
    ClientMessage,
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


async def test_previews_as_json_come_before_their_pictures(sdq: Sdq) -> None:
    async with ScriptedServer(draws(steps=2, preview=b"\xff\xd8")) as server:
        outcome = await sdq(
            "generate", "x", "--json", "--preview", "-n", "2", server=server.address
        )
    assert outcome.code == 0
    told = [json.loads(line) for line in outcome.lines]
    previews = [one for one in told if one.get("event") == "preview"]
    made = [one for one in told if "path" in one]
    assert len(made) == 2
    assert {one["key"] for one in previews} == {one["key"] for one in made}
    assert previews[0] | {"key": ""} == {
        "event": "preview", "key": "", "job_id": "job0", "step": previews[0]["step"], "steps": 2,
        "jpeg": "/9g=",
    }  # fmt: skip


async def test_where_nothing_can_be_shown_no_previews_are_asked_for(sdq: Sdq) -> None:
    async with ScriptedServer(draws(preview=b"\xff\xd8")) as server:
        outcome = await sdq("generate", "x", "--preview", "-o", "-", server=server.address)
        (asked,) = server.heard_of(Generate)
    assert (outcome.code, asked.preview) == (0, False)
    assert outcome.stdout.startswith(b"\x89PNG")


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
        for ahead, note in ((3, "3 ahead"), *[(2, "no worker online holds 'shapes'")] * 2):
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
