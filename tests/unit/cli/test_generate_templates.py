"""Templates in `sdq generate` and `sdq submit`, as processes."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sdq.protocol.messages import ClientMessage, Generate
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import ScriptedServer, hits

Sdq = Callable[..., Awaitable[Any]]


def prompts(server: ScriptedServer, kind: type[ClientMessage] = Generate) -> list[str]:
    return [message.draft.prompt for message in server.heard_of(kind)]  # type: ignore[attr-defined]


async def test_a_template_is_expanded_only_when_that_is_said(sdq: Sdq, tmp_path: Path) -> None:
    template = "a {red|green} {cat|dog} # and {x"
    async with ScriptedServer(hits()) as server:
        plain = await sdq("generate", template, "-o", "one.png", server=server.address)
        assert (plain.code, plain.lines) == (0, ["one.png"])
        assert prompts(server) == [template]
        assert "looks like a template" in plain.stderr
        server.heard.clear()
        flags = ("--expand", "-o", "t.png", "--seed", "4")
        expanded = await sdq("generate", template, *flags, server=server.address)
        assert sorted(expanded.lines) == [f"t-{number}.png" for number in range(1, 5)]
        assert prompts(server) == [
            f"a {colour} {animal} # and {{x"
            for colour in ("red", "green")
            for animal in ("cat", "dog")
        ]
        server.heard.clear()
        await sdq("generate", template, *flags, "--random", "2", "--force", server=server.address)
        some = prompts(server)
        assert len(some) == len(set(some)) == 2


async def test_one_prompt_stays_one_file(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq("generate", "a {", "--expand", "-o", "x.png", server=server.address)
    assert (outcome.code, outcome.lines) == (0, ["x.png"])
    assert "template" not in outcome.stderr


async def test_templates_on_standard_input(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        outcome = await sdq(
            "generate", "-", "--expand", "-o", "{n}.png", text=b"{a|b}\n\nc\n",
            server=server.address,
        )  # fmt: skip
        assert sorted(prompts(server)) == ["a", "b", "c"]
    assert sorted(outcome.lines) == ["1.png", "2.png", "3.png"]


async def test_what_cannot_be_expanded_is_said_before_anything_is_drawn(sdq: Sdq) -> None:
    async with ScriptedServer(hits()) as server:
        for flags, words in (
            (("{a|b}" * 12, "--expand"), "4096 prompts"),
            (("{2$$a|b}", "--expand"), "several"),
            (("x", "--wildcards", "w"), "give --expand too"),
            (("x", "--expand", "--wildcards", "nowhere"), "no folder"),
        ):
            outcome = await sdq("generate", *flags, server=server.address)
            assert outcome.code == 2
            assert words in outcome.stderr
        assert prompts(server) == []


async def test_submit(sdq: Sdq) -> None:
    async with ScriptedServer(ScriptedJobs().handle) as server:
        outcome = await sdq("submit", "a {red|green} cat", "--expand", server=server.address)
    assert (outcome.code, outcome.lines) == (0, ["job0", "job1"])
