"""`sdq batch` and `sdq plan` as processes: streams, files, exit codes."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sdq import metadata
from sdq.testing.scripted_plans import ScriptedHouse
from sdq.testing.transport import LIMITS, ScriptedServer

Sdq = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[Any]]


@pytest.fixture
def house() -> ScriptedHouse:
    return ScriptedHouse()


@pytest.fixture
async def server(house: ScriptedHouse) -> AsyncIterator[str]:
    async with ScriptedServer(house.handle) as server:
        yield server.address


def records(outcome: Any, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in outcome.lines]
    return [record for record in told if record["event"] == event]


async def test_run_again_only_what_is_missing(
    sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n\nthree\n")
    flags = ("batch", "p.txt", "-o", "out/{line}.png", "--steps", "7", "--negative", "x")
    first = await sdq(*flags, server=server)
    assert first.code == 0, first.stderr
    assert sorted(first.lines) == ["out/1.png", "out/2.png", "out/4.png"]
    assert first.stderr == "3 done: 3 made\n"
    provenance = metadata.read((tmp_path / "out" / "4.png").read_bytes())
    assert provenance is not None
    spec = provenance.spec
    assert (spec.prompt, spec.num_inference_steps, spec.negative_prompt) == ("three", 7, "x")
    (tmp_path / "out" / "2.png").unlink()
    house.library.clear()
    again = await sdq(*flags, server=server)
    assert (again.code, again.stderr) == (0, "3 done: 1 made, 2 up to date\n")
    assert house.drawn == ["one", "two", "three", "two"]
    other = await sdq(*flags, "--seed", "1", server=server)
    assert other.code == 1
    assert "out/1.png exists and holds another picture" in other.stderr
    forced = await sdq(*flags, "--seed", "1", "--force", server=server)
    assert (forced.code, len(forced.lines)) == (0, 3)


async def test_what_fails_is_listed_and_can_be_drawn_again(
    sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    house.breaks["broken, twice"] = -1
    lines = [
        "prompt,steps,count,model",
        '"broken, twice",3,2,',
        "good,3,2,",
        "odd,nine,,",
        "off,9999,,",
        "x,,,nosuch",
    ]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    flags = ("--failed", "failed.csv", "-o", "{line}-{index}.png")
    outcome = await sdq("batch", "s.csv", *flags, server=server)
    assert outcome.code == 1
    assert sorted(outcome.lines) == ["3-0.png", "3-1.png"]
    told = outcome.stderr.splitlines()
    assert told[-1] == "2 done: 2 made; 5 failed"
    assert "error: line 2: it broke" in told
    assert "error: line 4: column 'steps': 'nine' is no whole number" in told
    assert "error: line 6: no such model" in told
    failed = (tmp_path / "failed.csv").read_text().splitlines()
    assert failed[0] == lines[0]
    assert sorted(failed[1:]) == sorted([lines[1], *lines[3:]])
    house.breaks.clear()
    (tmp_path / "failed.csv").write_text("\n".join(lines[:2]))
    mended = await sdq("batch", "failed.csv", "--failed", "failed.csv", server=server)
    assert (mended.code, len(mended.lines)) == (0, 2)
    assert (tmp_path / "failed.csv").read_text() == ""


async def test_json_and_retries(
    sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    house.breaks |= {"late": 1, "never": -1}
    text = '{"prompt": "late", "output": "late.jpg"}\n{"prompt": "never"}\n'
    flags = ("--format", "jsonl", "--json", "--retry", "1")
    outcome = await sdq("batch", "-", *flags, text=text.encode(), server=server)
    assert (outcome.code, outcome.stderr.count("error:")) == (1, 1)
    (picture,) = records(outcome, "picture")
    assert (picture["line"], picture["status"], picture["path"]) == (1, "made", "late.jpg")
    assert picture["spec"]["prompt"] == "late"
    (failed,) = records(outcome, "failed")
    assert failed == {
        "event": "failed",
        "line": 2,
        "error": {"code": "generation_failed", "message": "it broke", "hint": "again"},
    }
    (end,) = records(outcome, "end")
    counted = {"made": 1, "hits": 0, "up_to_date": 0, "failed": 1, "failed_lines": 1}
    assert end == {"event": "end", "interrupted": False} | counted


async def test_pictures_stream_while_lines_still_come_and_jobs_are_bounded(
    start: Start, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    running = await start(
        "batch", "-", "-o", "{n}.png", "--jobs", "3", server=server, stdin=asyncio.subprocess.PIPE
    )
    process = running.process
    process.stdin.write(b"first\n")
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"1.png\n"
    house.is_open.clear()
    process.stdin.write(b"".join(b"more %d\n" % number for number in range(20)))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while house.asked < 3:  # noqa: ASYNC110 - the house has no bell
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert house.most_asked == 3
    house.is_open.set()
    outcome = await running.outcome(b"last\n")
    assert (outcome.code, len(outcome.lines)) == (0, 21)
    assert house.most_asked == 3


async def test_ctrl_c_leaves_whole_files_and_a_second_run_ends_it(
    sdq: Sdq, start: Start, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(f"picture {number}" for number in range(12)))
    house.step_seconds = 0.05
    flags = ("batch", "p.txt", "-o", "out/{line:02}.png", "--jobs", "2")
    running = await start(*flags, server=server)
    await asyncio.wait_for(running.process.stdout.readline(), 20)
    running.interrupt()
    outcome = await running.outcome()
    assert outcome.code == 130
    assert outcome.stderr.startswith("interrupted; ")
    assert "the same command again does the rest" in outcome.stderr
    assert 1 <= len(list((tmp_path / "out").iterdir())) < 12
    again = await sdq(*flags, server=server)
    assert again.code == 0
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"{number:02}.png" for number in range(1, 13)]


async def test_a_named_pipe_is_waited_for_and_can_be_left(
    start: Start, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    os.mkfifo(tmp_path / "p.fifo")
    nobody = await start("batch", "p.fifo", "--json", "--timeout", "0.3", server=server)
    outcome = await nobody.outcome()
    assert (outcome.code, house.drawn) == (7, [])
    running = await start("batch", "p.fifo", "-o", "{n}.png", server=server)
    await asyncio.to_thread((tmp_path / "p.fifo").write_text, "one\ntwo\n")
    outcome = await running.outcome()
    assert (outcome.code, sorted(outcome.lines)) == (0, ["1.png", "2.png"])


async def test_the_deadline(sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str) -> None:
    house.is_open.clear()
    outcome = await sdq("batch", "-", "--timeout", "0.5", text=b"x\n", server=server)
    assert outcome.code == 7
    assert "the same command again does the rest" in outcome.stderr


@pytest.mark.parametrize(
    ("content", "flags", "words"),
    [
        ("prmpt\nx\n", ("--format", "csv"), "did you mean 'prompt'?"),
        ("", (), "there is no line to draw"),
        ("x\n", ("-o", "-"), "standard output"),
        ("x\n", ("-o", "{nosuch}.png"), "{nosuch}"),
        ("x\n", ("--random", "3"), "--expand"),
        ("- x\n- : [\n", ("--format", "yaml"), "line 2 is no YAML"),
    ],
)
async def test_wrong_usage(
    sdq: Sdq, server: str, content: str, flags: tuple[str, ...], words: str
) -> None:
    outcome = await sdq("batch", "-", *flags, text=content.encode(), server=server)
    assert outcome.code == 2
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


async def test_templates(sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "shape.txt").write_text("circle\nsquare\n")
    text = b"{red|green} __shape__\nplain # {x\n"
    kept = await sdq("batch", "-", "-o", "k{n}.png", text=text, server=server)
    assert "--expand" in kept.stderr
    assert sorted(house.drawn) == ["plain # {x", "{red|green} __shape__"]
    house.drawn.clear()
    flags = ("--expand", "--wildcards", "w", "-o", "e{n}.png")
    expanded = await sdq("batch", "-", *flags, text=text, server=server)
    assert sorted(expanded.lines) == [f"e{number}.png" for number in range(1, 6)]
    assert sorted(house.drawn) == ["green circle", "green square", "red circle", "red square"]


# ------------------------------------------------------------------ plan


async def test_a_plan(sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str) -> None:
    (tmp_path / "p.txt").write_text("old\nkept\nnew\nnew\n")
    await sdq("batch", "-", "-o", "1.png", text=b"old\n", server=server)
    (tmp_path / "1-1.png").rename(tmp_path / "1.png")
    await sdq("batch", "-", "-o", "x/", text=b"kept\n", server=server)
    plan = await sdq("plan", "p.txt", "-o", "{line}.png", "-n", "1", server=server)
    assert plan.code == 0, plan.stderr
    states = [line[8:24].strip() for line in plan.lines[:4]]
    assert states == ["up to date", "in the library", "new", "in flight"]
    assert plan.lines[4] == "4 pictures: 1 up to date, 1 in the library, 1 in flight, 1 new"
    assert plan.lines[5] == (
        "1 picture to draw: 0.5 s of device time, about 0.2 s with the workers online"
    )
    assert house.drawn == ["old", "kept"]
    same = await sdq("batch", "p.txt", "-o", "{line}.png", "--dry-run", server=server)
    assert same.lines == plan.lines


async def test_a_plan_as_json(sdq: Sdq, tmp_path: Path, house: ScriptedHouse, server: str) -> None:
    house.picture_seconds = None
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "count": 3}\n{"model": "nosuch"}\n[]\n')
    plan = await sdq("plan", "p.jsonl", "--json", server=server)
    assert plan.code == 1
    lines = records(plan, "line")
    assert [picture["status"] for picture in lines[0]["pictures"]] == ["made"] * 3
    assert [line["error"]["message"] for line in lines[1:]] == [
        "there is no prompt",
        "this is no object with a prompt",
    ]
    (sums,) = records(plan, "plan")
    assert (sums["made"], sums["failed"], sums["device_seconds"]) == (3, 2, None)


async def test_many_lines_are_foreseen_in_chunks(sdq: Sdq, house: ScriptedHouse) -> None:
    from sdq.protocol.job_messages import Foresee

    async with ScriptedServer(house.handle, limits=LIMITS) as server:
        text = "".join(f"{'long ' * 300}{number}\n" for number in range(250))
        plan = await sdq("plan", "-", text=text.encode(), server=server.address)
        asked = server.heard_of(Foresee)
    assert plan.lines[-2] == "250 pictures: 250 new"
    sizes = [len(message.intents) for message in asked if isinstance(message, Foresee)]
    assert sum(sizes) == 250
    assert len(sizes) < 50
    assert max(sizes) <= 100


async def test_a_server_that_comes_back_is_waited_for(
    start: Start, tmp_path: Path, house: ScriptedHouse
) -> None:
    house.step_seconds = 0.01
    (tmp_path / "p.txt").write_text("".join(f"{number}\n" for number in range(230)))
    async with ScriptedServer(house.handle) as server:
        flags = ("batch", "p.txt", "-o", "out/{line}.png", "--jobs", "50")
        running = await start(*flags, server=server.address)
        await asyncio.wait_for(running.process.stdout.readline(), 20)
        await server.stop()
        await asyncio.sleep(0.3)
        await server.start()
        outcome = await running.outcome()
    assert outcome.code == 0, outcome.stderr
    assert "reconnecting" in outcome.stderr
    assert len(list((tmp_path / "out").iterdir())) == 230


async def test_a_reader_that_leaves_ends_it(
    start: Start, tmp_path: Path, house: ScriptedHouse, server: str
) -> None:
    (tmp_path / "p.txt").write_text("".join(f"{number}\n" for number in range(50)))
    running = await start("batch", "p.txt", "-o", "out/", server=server)
    reader = running.process.stdout
    await asyncio.wait_for(reader.readline(), 20)
    running.process._transport.get_pipe_transport(1).close()
    async with asyncio.timeout(20):
        code = await running.process.wait()
    said = (await running.process.stderr.read()).decode()
    assert "Traceback" not in said
    assert code in (0, 1)
