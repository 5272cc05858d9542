"""`sdq submit`, `attach`, `cancel`, `jobs`: streams, exit codes, words."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pexpect
import pytest

from sdq.cli.main import main
from sdq.cli.output import columns_of
from sdq.protocol.job_messages import (
    Attach,
    CancelJobs,
    JobInfo,
    Jobs,
    JobsCancelled,
    ListJobs,
    Submit,
)
from sdq.protocol.messages import CachePolicy, ClientMessage
from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.spec import SpecDraft
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import ScriptedPeer, ScriptedServer, refuses, resolved

Sdq = Callable[..., Awaitable[Any]]
ROOT = Path(__file__).parents[3]

JOB = JobInfo(
    job_id="j1",
    key="a" * 64,
    spec=resolved(SpecDraft(prompt="red\x1b[2J circle")),
    state=JobState.QUEUED,
    is_mine=True,
    priority=Priority.NORMAL,
    created_seconds_ago=30.0,
    changed_seconds_ago=30.0,
    attempt=0,
    ahead=3,
    eta_seconds=12.0,
)


def answers(reply: Callable[[int], msgspec.Struct]) -> Any:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        peer.send(reply(getattr(message, "request_id", 0)))

    return handle


async def heard(server: ScriptedServer, kind: type[ClientMessage], count: int = 1) -> None:
    await server.heard_enough(lambda: len(server.heard_of(kind)) >= count, timeout_seconds=20)


# ------------------------------------------------------------------ submit


async def test_submit_prints_job_ids_and_leaves(sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        outcome = await sdq(
            "submit", "x", "-n", "3", "--priority", "low", "--seed", "5", "--steps", "7",
            "--cache", "refresh", server=server.address,
        )  # fmt: skip
        (message,) = server.heard_of(Submit)
    assert outcome.code == 0
    assert outcome.lines == ["job0", "job1", "job2"]
    assert outcome.stderr == "3 pictures handed in\n"
    assert isinstance(message, Submit)
    assert message.draft == SpecDraft("x", num_inference_steps=7, seed=5)
    assert (message.count, message.priority) == (3, Priority.LOW)
    assert message.cache is CachePolicy.REFRESH


async def test_submit_says_what_was_in_the_library(sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        await sdq("submit", "x", "-n", "2", server=server.address)
        table.finish("job1")
        again = await sdq("submit", "x", "-n", "2", "--json", server=server.address)
    assert again.stderr == "2 pictures handed in, 1 of them in the library already\n"
    records = [json.loads(line) for line in again.lines]
    assert [record["job_id"] for record in records] == ["job0", "job2"]
    assert [record["cache"] for record in records] == ["joined", "hit"]
    assert set(records[0]) == {"job_id", "index", "key", "seed", "cache", "spec"}


async def test_submit_reads_prompts_in_order(sdq: Sdq) -> None:
    table = ScriptedJobs()
    text = b"one\n\n" + b"x" * 2_001 + b"\ntwo\n"
    async with ScriptedServer(table.handle) as server:
        outcome = await sdq("submit", "-", text=text, server=server.address)
    assert outcome.lines == ["job0", "job1"]
    assert [job.spec.prompt for job in table.jobs.values()] == ["one", "two"]
    assert outcome.code == 1
    assert "error: line 3: the prompt has 2001 characters" in outcome.stderr


async def test_submit_is_refused(sdq: Sdq) -> None:
    async with ScriptedServer(refuses("busy", "100000 pictures are waiting already")) as server:
        outcome = await sdq("submit", "x", server=server.address)
    assert (outcome.code, outcome.stdout) == (1, b"")
    assert "100000 pictures are waiting" in outcome.stderr


async def test_submit_into_a_full_disk_says_so(sdq: Sdq) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with ScriptedServer(ScriptedJobs().handle) as server:
            outcome = await sdq("submit", "x", server=server.address, stdout=full)
    finally:
        os.close(full)
    assert outcome.code == 2
    assert "error: cannot write standard output: No space left" in outcome.stderr
    assert "not foreseen" not in outcome.stderr


# ------------------------------------------------------------------ attach


async def test_attach_brings_the_pictures(sdq: Sdq, tmp_path: Path) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="Big Cat"), count=2)
        table.finish()
        outcome = await sdq(
            "attach", "-", "-o", "p/{n}-{slug}.png", text=b"job1 job0\njob1\n",
            server=server.address,
        )  # fmt: skip
        (message,) = server.heard_of(Attach)
    assert isinstance(message, Attach)
    assert message.job_ids == ("job1", "job0")
    assert outcome.code == 0
    assert sorted(outcome.lines) == ["p/1-big-cat.png", "p/2-big-cat.png"]
    assert all((tmp_path / line).stat().st_size for line in outcome.lines)


async def test_attach_as_json_and_unknown_jobs(sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x"))
        table.finish()
        outcome = await sdq("attach", "nobody", "job0", "--json", server=server.address)
        only = await sdq("attach", "nobody", server=server.address)
    (record,) = [json.loads(line) for line in outcome.lines]
    assert record["job_id"] == "job0"
    assert outcome.code == 1
    assert "error: job nobody: no such job" in outcome.stderr
    assert "1 written, 1 failed" in outcome.stderr
    assert (only.code, only.stdout) == (2, b"")


async def test_attach_asks_for_previews_where_they_can_be_told(sdq: Sdq) -> None:
    async with ScriptedServer(ScriptedJobs().handle) as server:
        await sdq("attach", "gone", "--preview", "--json", server=server.address)
        await sdq("attach", "gone", "--preview", server=server.address)
        asked = [message.preview for message in server.heard_of(Attach)]
    assert asked == [True, False]


async def test_attach_leaves_jobs_alone(start: Sdq, sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x"))
        late = await sdq("attach", "job0", "--timeout", "0.3", server=server.address)
        running = await start("attach", "job0", server=server.address)
        await heard(server, Attach, 2)
        running.interrupt()
        outcome = await running.outcome()
        assert not server.heard_of(CancelJobs)
    assert late.code == 7
    assert "the jobs go on" in late.stderr
    assert outcome.code == 130
    assert outcome.stderr == "left: 0 of 1 written, the jobs go on\n"
    assert table.jobs["job0"].state is JobState.RUNNING


# ------------------------------------------------------------------ cancel


async def test_cancel_says_what_came_of_each(sdq: Sdq) -> None:
    reply = answers(lambda number: JobsCancelled(number, 2, kept=1, ended=3, foreign=1))
    async with ScriptedServer(reply) as server:
        outcome = await sdq("cancel", "a", "b", server=server.address)
        mine = await sdq("cancel", "--all-mine", "--json", server=server.address)
        first, second = server.heard_of(CancelJobs)
    assert outcome.lines == [
        "2 cancelled, 1 goes on for somebody else, 3 had ended already, 1 is only somebody else's"
    ]
    assert outcome.code == mine.code == 0
    assert isinstance(first, CancelJobs)
    assert isinstance(second, CancelJobs)
    assert (first.job_ids, first.all_mine) == (("a", "b"), False)
    assert (second.job_ids, second.all_mine) == ((), True)
    assert json.loads(mine.stdout) == {
        "cancelled": 2, "kept": 1, "ended": 3, "foreign": 1, "unknown": [],
    }  # fmt: skip


async def test_cancel_of_unknown_jobs(sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x"))
        outcome = await sdq("cancel", "job0", "nobody", server=server.address)
        only = await sdq("cancel", "nobody", server=server.address)
    assert outcome.code == only.code == 2
    assert outcome.lines == ["1 cancelled"]
    assert "no such job: nobody" in outcome.stderr
    assert only.stdout == b""


async def test_a_quiet_cancel_says_nothing_but_errors(sdq: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x"))
        done = await sdq("cancel", "job0", "-q", server=server.address)
        unknown = await sdq("cancel", "nobody", "--quiet", server=server.address)
        told = await sdq("cancel", "job0", "-q", "--json", server=server.address)
    assert (done.code, done.stdout, done.stderr) == (0, b"", "")
    assert table.jobs["job0"].state is JobState.CANCELLED
    assert unknown.code == 2
    assert "no such job: nobody" in unknown.stderr
    assert "cancelled" in json.loads(told.stdout)
    assert table.jobs["job0"].state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cancel"], "--all-mine"),
        (["cancel", "a", "--all-mine"], "--all-mine"),
        (["cancel", "NO"], "'NO' is no job id"),
        (["attach", "a/b"], "no job id"),
        (["attach", "a", "-o", "-", "--json"], "standard output"),
        (["attach", "a", "b", "-o", "{slug}.png"], "one name"),
        (["attach"], "JOB"),
        (["submit", "x", "--cache", "off"], "off"),
        (["submit", "x", "--priority", "urgent"], "urgent"),
        (["submit", "x", "--seed", "1", "--new"], "--new"),
        (["jobs", "--watch"], "--json"),
        (["jobs", "--limit", "0"], "0"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


async def test_no_ids_on_standard_input(sdq: Sdq) -> None:
    outcome = await sdq("attach", "-", text=b" \n")
    assert outcome.code == 2
    assert "no job id" in outcome.stderr


# ------------------------------------------------------------------ jobs


async def test_jobs_as_a_table(sdq: Sdq) -> None:
    shown = (
        msgspec.structs.replace(
            JOB, job_id="j4", state=JobState.RUNNING, step=7, worker_id="w1", ahead=None,
            eta_seconds=3.5,
        ),
        JOB,
        msgspec.structs.replace(
            JOB, job_id="j3", ahead=2, eta_seconds=None, note="no worker online holds 'shapes'"
        ),
        msgspec.structs.replace(
            JOB, job_id="j2", state=JobState.FAILED, ahead=None, error_message="x" * 99
        ),
        msgspec.structs.replace(JOB, job_id="j0", state=JobState.SUCCEEDED, draw_seconds=2.1),
    )  # fmt: skip
    async with ScriptedServer(answers(lambda number: Jobs(number, shown, more=4))) as server:
        outcome = await sdq("jobs", "--mine", "--all", "--limit", "5", server=server.address)
        (message,) = server.heard_of(ListJobs)
    assert message == ListJobs(1, mine=True, ended=True, limit=5)
    titles, running, queued, waiting, failed, done = outcome.lines
    assert titles.split() == ["JOB", "STATE", "PROGRESS", "ETA", "AGE", "PROMPT"]
    assert "step 7 of 20 on w1" in running
    assert "3.5 s" in running
    assert "3 ahead" in queued
    assert "12 s" in queued
    assert "red\\x1b[2J circle" in queued
    assert "no worker online holds 'shapes'" in waiting
    assert "x" * 39 + "…" in failed
    assert "drawn in 2.1 s" in done
    assert outcome.stderr == "and 4 more: --limit shows more of them\n"


async def test_jobs_as_json_and_none_at_all(sdq: Sdq) -> None:
    async with ScriptedServer(answers(lambda number: Jobs(number, (JOB,)))) as server:
        outcome = await sdq("jobs", "--json", server=server.address)
    record = json.loads(outcome.stdout)
    assert (record["job_id"], record["state"], record["eta_seconds"]) == ("j1", "queued", 12.0)
    async with ScriptedServer(answers(lambda number: Jobs(number, ()))) as server:
        outcome = await sdq("jobs", server=server.address)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"", "")


async def test_watching_as_json_tells_changes_only(start: Sdq) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x"), count=2)
        running = await start("jobs", "--watch", "--json", server=server.address)

        async def record() -> tuple[str, str]:
            line = await asyncio.wait_for(running.process.stdout.readline(), 20)
            job = json.loads(line)
            return job["job_id"], job["state"]

        assert [await record(), await record()] == [("job0", "running"), ("job1", "running")]
        await heard(server, ListJobs, 3)  # it has looked again, and there was nothing to tell
        await server.stop()
        assert await asyncio.wait_for(running.process.stderr.readline(), 20)
        table.finish("job0")
        await server.start()
        assert await record() == ("job0", "succeeded")
        running.interrupt()
        outcome = await running.outcome()
    assert outcome.code == 130
    assert outcome.stdout == b""
    assert outcome.stderr == "connected again\n"


async def test_watching_on_a_terminal(tmp_path: Path) -> None:
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="x\x1b[31m" * 40), count=9)
        loop = asyncio.get_running_loop()

        def watch() -> tuple[str, int]:
            env = {**os.environ, "PYTHONPATH": str(ROOT), "SDQ_SERVER": server.address}
            child = pexpect.spawn(
                sys.executable, ["-m", "sdq", "jobs", "--watch"], env={**env, "TERM": "xterm"},
                cwd=str(tmp_path), dimensions=(8, 60), encoding="utf-8", timeout=20,
            )  # fmt: skip
            child.expect("JOB .*job8.*and 4 more: a higher window shows them")
            seen = child.before + child.after
            loop.call_soon_threadsafe(table.finish, "job8")
            child.expect("\x1b\\[7F\x1b\\[J.*job8.*succeeded")
            child.expect("\x1b\\[7F\x1b\\[J")
            child.sendintr()
            child.expect(pexpect.EOF)
            child.close()
            return seen + child.before, child.exitstatus

        text, code = await asyncio.to_thread(watch)
    assert code == 130
    assert "\x1b[31m" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.rindex("\r\x1b[K") > text.rindex("^C")  # the shell's prompt has a line of its own


async def test_watching_wide_letters(tmp_path: Path) -> None:
    """A row that wraps would throw out where the next table is drawn."""
    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        table.plan(SpecDraft(prompt="紅い円🚀" * 40), count=1)

        def watch() -> str:
            env = {**os.environ, "PYTHONPATH": str(ROOT), "SDQ_SERVER": server.address}
            child = pexpect.spawn(
                sys.executable, ["-m", "sdq", "jobs", "--watch"], env={**env, "TERM": "xterm"},
                cwd=str(tmp_path), dimensions=(8, 70), encoding="utf-8", timeout=20,
            )  # fmt: skip
            child.expect("job0[^\r\n]*…\r\n")
            child.terminate(force=True)
            return str(child.after).rstrip()

        row = await asyncio.to_thread(watch)
    assert 69 <= columns_of(row) <= 70
