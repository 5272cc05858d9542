"""How far an installation is, and how it ended, for people and for programs."""

import json
from pathlib import Path

import pytest

from sdq.cli.installing import reporter, say_installed
from sdq.testing.worker import fake_profile
from sdq.worker.install import Installed, InstallProgress


def step(phase: str, file: str = "", done: int = 0, total: int = 0, at_once: int = 0):
    return InstallProgress(phase, file, done, total, "sd\x1b15", at_once)  # type: ignore[arg-type]


WEIGHTS = "unet\x1b.safetensors"
STEPS = [
    *(step("download", WEIGHTS, done, 100) for done in range(101)),
    step("verify", WEIGHTS, 100, 100),
    step("load"),
    step("canary", at_once=1),
    step("canary", at_once=1),
    *(step("measure", at_once=pictures) for pictures in (1, 2, 4)),
    step("done"),
]


def installed(**changes: object) -> Installed:
    fields = {
        "folder": Path("/models/sd15"),
        "model_id": "sd15",
        "worker_id": "box-1",
        "profile": fake_profile(),
    }
    return Installed(**(fields | changes))  # type: ignore[arg-type]


def test_without_a_terminal_each_step_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=False) as report:
        for progress in STEPS:
            report(progress)
    assert capsys.readouterr().err.splitlines() == [
        "sd\\x1b15: fetching unet\\x1b.safetensors",
        "sd\\x1b15: verifying",
        "sd\\x1b15: loading",
        "sd\\x1b15: drawing a first picture",
        "sd\\x1b15: measuring",
    ]


def test_json_is_not_chatty(capfd: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=True) as report:
        for progress in STEPS:
            report(progress)
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [record["phase"] for record in records][-4:] == ["measure"] * 3 + ["done"]
    assert [record["at_once"] for record in records if record["phase"] == "measure"] == [1, 2, 4]
    assert {
        "phase": "download",
        "model_id": "sd\x1b15",
        "file": "unet\x1b.safetensors",
        "done_bytes": 100,
        "total_bytes": 100,
        "at_once": 0,
        "bytes_per_second": None,
        "seconds_left": None,
    } in records
    assert len(records) < 15


def test_the_end_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    say_installed(installed(), as_json=False)
    say_installed(installed(already=True, is_moved=True), as_json=False)
    assert capsys.readouterr().err.splitlines() == [
        "sd15 is installed: worker box-1, a picture in 0.5 s, 2 at once in float32 on fake",
        "sd15 was installed already: worker box-1, a picture in 0.5 s, "
        "2 at once in float32 on fake",
        "it worked for another Redis before: all its models draw for this server from now on",
    ]


def test_the_end_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    say_installed(installed(), as_json=True)
    record = json.loads(capfd.readouterr().out)
    assert (record["phase"], record["model_id"], record["worker_id"]) == (
        *("installed", "sd15", "box-1"),
    )
    assert (record["canary_seconds"], record["at_once"], record["dtype"]) == (0.5, 2, "float32")
    assert record["turn_seconds"] == {"1": 0.02, "2": 0.03, "4": 0.06}
    assert (record["already"], record["is_moved"]) == (False, False)


def test_a_long_download_without_a_terminal_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("sdq.cli.installing.time.monotonic", lambda: now)
    mib = 2**20
    with reporter(as_json=False) as report:
        for second in range(25):
            done, left = second * mib, 100.0 - second
            found = InstallProgress("download", "w", done, 100 * mib, "sd15", 0, 1.0 * mib, left)
            report(found)
            now += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "sd15: fetching w",
        "sd15: fetching w: 10.0 MiB of 100.0 MiB, 1.0 MiB/s, 90 s left",
        "sd15: fetching w: 20.0 MiB of 100.0 MiB, 1.0 MiB/s, 80 s left",
    ]


def test_speed_and_time_left_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=True) as report:
        report(InstallProgress("wait", "/home/of/sdq", 0, 0, "sd15"))
        report(InstallProgress("download", "w", 50, 100, "sd15", 0, 25.0, 2.0))
    waiting, record = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (waiting["phase"], waiting["bytes_per_second"]) == ("wait", None)
    assert (record["bytes_per_second"], record["seconds_left"]) == (25.0, 2.0)


def test_that_another_install_is_waited_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=False) as report:
        report(InstallProgress("wait", "/home/of\x1bsdq", 0, 0, "sd15"))
    assert capsys.readouterr().err == ("sd15: waiting for another install in /home/of\\x1bsdq\n")
