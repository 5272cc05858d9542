"""Jobs that outlive who asked, and the server: handed in, fetched, taken back, drained."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq.server.catalog import Catalog

PROMPT = "a red circle on a blue background"


@pytest.fixture
def house(sdq: Any, redis_url: str) -> Any:
    """A server on a Redis that outlives it."""
    sdq.redis_url = redis_url
    sdq.server = sdq.serve("--redis", redis_url)
    return sdq


@pytest.fixture
def worker(house: Any, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker whose pictures take two seconds."""
    fingerprint = Catalog.load().manifest(None).fingerprint
    argv = [sys.executable, "-m", "sdq.testing.worker", str(tmp_path / "worker")]
    argv += ["--redis", house.redis_url, "--fingerprint", fingerprint, "--seconds-per-step", "0.1"]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(argv, env=house.env, stdout=log, stderr=log)
    try:
        house.server.until(lambda: "ready" in states_of(house))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def states_of(house: Any) -> list[str]:
    done = house("workers", "--json")
    return [json.loads(line)["state"] for line in done.stdout.splitlines()]


def submit(house: Any, prompt: str, *flags: str) -> list[str]:
    done = house("submit", prompt, *flags)
    assert done.returncode == 0, done.stderr
    return list(done.stdout.split())


def test_handed_in_and_fetched_later(house: Any, worker: Any) -> None:
    ids = submit(house, PROMPT, "-n", "2")
    assert len(ids) == 2
    done = house("attach", "-", "-o", "circles/", stdin="\n".join(ids))
    assert done.returncode == 0, done.stderr
    paths = [house.folder / line for line in done.stdout.splitlines()]
    assert len(paths) == 2
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (128, 128)
    again = house("submit", PROMPT, "-n", "2")
    assert "library" in again.stderr
    assert not set(again.stdout.split()) & set(ids)


def test_a_request_survives_the_servers_restart(house: Any, worker: Any) -> None:
    waiting = house.start("generate", PROMPT, "-n", "3", "-o", str(house.folder / "a-{n}.png"))
    waiting.until(lambda: (house.folder / "a-1.png").exists())
    house.server.process.kill()
    house.server.process.wait()
    waiting.until(lambda: "reconnecting" in waiting.said)
    host, port = house.env["SDQ_SERVER"].split(":")
    house.start("server", "--host", host, "--port", port, "--redis", house.redis_url)
    assert waiting.process.wait(90) == 0, waiting.said
    assert sorted(path.name for path in house.folder.glob("a-*.png")) == [
        "a-1.png",
        "a-2.png",
        "a-3.png",
    ]
    assert waiting.said.count("a-1.png  made") == 1
    assert "connected again" in waiting.said


def test_what_waits_is_listed_with_its_reason_and_taken_back(house: Any) -> None:
    first, second = submit(house, PROMPT), submit(house, "a green square", "--priority", "high")
    rows = [json.loads(line) for line in house("jobs", "--json").stdout.splitlines()]
    assert {row["job_id"]: row["state"] for row in rows} == {
        first[0]: "queued",
        second[0]: "queued",
    }
    assert {row["priority"] for row in rows} == {"normal", "high"}
    assert all("no worker online" in row["note"] for row in rows)
    assert house("cancel", *first).returncode == 0
    assert second[0] in house("jobs").stdout
    assert first[0] not in house("jobs").stdout
    done = house("cancel", "--all-mine", "--json")
    assert json.loads(done.stdout)["cancelled"] == 1
    assert house("attach", *first, "-o", "x.png").returncode == 1
    unknown = house("cancel", "nosuchjob")
    assert unknown.returncode == 2
    assert "nosuchjob" in unknown.stderr


def test_a_drained_worker_finishes_its_picture_and_hands_back_the_rest(
    house: Any, worker: "subprocess.Popen[bytes]"
) -> None:
    ids = submit(house, PROMPT, "-n", "5")
    house.server.until(lambda: "drawing" in states_of(house))
    done = house("worker", "drain", "fake-worker", "--wait")
    assert done.returncode == 0, done.stderr
    assert worker.wait(30) == 0
    rows = [json.loads(line) for line in house("jobs", "--all", "--json").stdout.splitlines()]
    states = sorted(row["state"] for row in rows if row["job_id"] in ids)
    assert "succeeded" in states
    assert set(states) - {"succeeded"}, "all were drawn: nothing was handed back"
    assert set(states) <= {"queued", "dispatched", "succeeded"}
    gone = house("worker", "drain", "fake-worker")
    assert gone.returncode == 2
    assert "no worker is online" in gone.stderr
