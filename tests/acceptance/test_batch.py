"""Batches that are killed, and the examples of docs/batches.md as they stand there."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdq import metadata
from sdq.server.catalog import Catalog
from sdq.stack.redis import RedisServer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "batches.md").read_text("utf-8")
LINES = 24


@pytest.fixture
def house(sdq: Any, tmp_path: Path) -> Iterator[Any]:
    """A server on a Redis that outlives it, and a worker that draws in no time."""
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        sdq.redis_url = redis.url
        sdq.server = sdq.serve("--redis", redis.url)
        fingerprint = Catalog.load().manifest(None).fingerprint
        argv = [sys.executable, "-m", "sdq.testing.worker", str(tmp_path / "worker")]
        argv += ["--redis", redis.url, "--fingerprint", fingerprint]
        argv += ["--seconds-per-step", "0.002"]
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen(argv, env=sdq.env, stdout=log, stderr=log)
        try:
            yield sdq
        finally:
            worker.kill()
            worker.wait()
            sdq.close()


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def prompt_of(path: Path) -> str:
    provenance = metadata.read(path.read_bytes())
    assert provenance is not None
    return provenance.spec.prompt


def example(language: str, words: str) -> str:
    """The block of the document in which these words stand."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if words in block]
    return str(block)


def typed(house: Any, command: str) -> "subprocess.CompletedProcess[str]":
    """A line of a shell, with this environment's sdq."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{house.env['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=house.folder, env=house.env | {"PATH": path},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_killed_twice_it_ends_with_the_same_files(house: Any) -> None:
    out = house.folder / "out"
    file = house.folder / "prompts.txt"
    file.write_text("".join(f"a red circle, number {number}\n" for number in range(LINES)))
    flags = ("batch", str(file), "-o", str(out / "{line:02}.png"), "--jobs", "3")

    first = house.start(*flags)
    first.until(lambda: len(pictures(out)) >= 4)
    first.end(signal.SIGKILL)
    some = len(pictures(out))
    assert some < LINES, "too fast to be killed in the middle"

    second = house.start(*flags)
    second.until(lambda: len(pictures(out)) >= some + 4)
    house.server.process.kill()
    house.server.process.wait()
    second.until(lambda: "reconnecting" in second.said)
    host, port = house.env["SDQ_SERVER"].split(":")
    house.start("server", "--host", host, "--port", port, "--redis", house.redis_url)
    second.until(lambda: len(pictures(out)) >= some + 6)
    second.end(signal.SIGKILL)

    third = house(*flags)
    assert third.returncode == 0, third.stderr
    assert len(third.stdout.splitlines()) == LINES
    assert "up to date" in third.stderr
    assert [path.name for path in sorted(out.iterdir())] == [
        f"{number:02}.png" for number in range(1, LINES + 1)
    ]
    assert [prompt_of(path) for path in pictures(out)] == file.read_text().splitlines()
    fourth = house(*flags)
    assert f"{LINES} done: {LINES} up to date" in fourth.stderr


def test_the_documents_examples(house: Any) -> None:
    folder = house.folder
    (folder / "prompts.txt").write_text("a red circle\na green square\n")
    (folder / "Makefile").write_text(example("make", "sdq batch"))
    made = typed(house, "make")
    assert made.returncode == 0, made.stderr
    assert [prompt_of(path) for path in pictures(folder / "out")] == [
        "a red circle", "a green square",
    ]  # fmt: skip
    assert "Nothing to be done" in typed(house, "make").stdout
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    os.utime(folder / "prompts.txt", (2**31, 2**31))
    again = typed(house, "make")
    assert "1 made, 1 up to date" in again.stderr
    assert prompt_of(folder / "out" / "002.png") == "a blue square"

    (folder / "parts").mkdir()
    for number in range(3):
        (folder / "parts" / f"{number}.txt").write_text(f"part {number}\nof all parts\n")
    by_xargs = typed(house, example("sh", "xargs"))
    assert by_xargs.returncode == 0, by_xargs.stderr
    assert {prompt_of(path) for path in pictures(folder / "out") if "part" in path.name} == {
        "part 0", "part 1", "part 2", "of all parts",
    }  # fmt: skip

    swept = typed(house, example("sh", "sdq sweep"))
    assert (swept.returncode, swept.stdout) == (0, "sheet.png\n"), swept.stderr
    shaped = typed(house, example("sh", "--expand"))
    assert len(shaped.stdout.split()) == 4, shaped.stderr
