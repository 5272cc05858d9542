"""The commands that run a part: their flags arrive as settings. And `sdq config`."""

import json
from pathlib import Path
from typing import Any

import pytest

from sdq.cli.config import config
from sdq.cli.installing import reporter
from sdq.cli.main import main
from sdq.config import Settings
from sdq.worker.install import InstallProgress


def test_server(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def run_server(settings: Settings) -> int:
        seen.append(settings)
        return 7

    monkeypatch.setattr("sdq.stack.up.run_server", run_server)
    flags = ["--host", "0.0.0.0", "--port", "0", "--redis", "redis://r", "--data-dir", "/d"]
    assert main(["server", *flags]) == 7
    (settings,) = seen
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 0)
    assert (settings.server.redis, settings.server.data_dir) == ("redis://r", "/d")


def test_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run_up(settings: Settings, *, model: str | None = None) -> int:
        seen.extend([settings, model])
        return 0

    monkeypatch.setattr("sdq.stack.up.run_up", run_up)
    flags = ["--port", "7000", "--device", "cpu", "--concurrency", "3", "--model", "m"]
    assert main(["up", *flags]) == 0
    settings, model = seen
    assert settings.server.port == 7000
    assert (settings.worker.device, settings.worker.concurrency) == ("cpu", 3)
    assert model == "m"


def test_worker_run(monkeypatch: pytest.MonkeyPatch, sdq_home: Path) -> None:
    seen: list[Any] = []

    def run(home: Any, *, concurrency: int, device: str, drain_seconds: float) -> int:
        seen.extend([home.root, concurrency, device, drain_seconds])
        return 143

    monkeypatch.setattr("sdq.worker.app.run", run)
    assert main(["worker", "run", "--concurrency", "4", "--device", "cpu"]) == 143
    assert seen == [sdq_home, 4, "cpu", 60.0]


STEPS = [
    InstallProgress("download", "unet\x1b.safetensors", 0, 100),
    *(InstallProgress("download", "unet\x1b.safetensors", done, 100) for done in range(100)),
    InstallProgress("download", "unet\x1b.safetensors", 100, 100),
    InstallProgress("verify", "unet\x1b.safetensors", 100, 100),
    InstallProgress("canary", "", 0, 0),
    InstallProgress("done", "", 0, 0),
]


def test_an_install_without_a_terminal_says_each_step_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with reporter(as_json=False) as report:
        for step in STEPS:
            report(step)
    assert capsys.readouterr().err.splitlines() == [
        "fetching unet\\x1b.safetensors",
        "verifying",
        "drawing a first picture",
    ]


def test_an_install_as_json_is_not_chatty(capfd: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=True) as report:
        for step in STEPS:
            report(step)
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [record["phase"] for record in records][-3:] == ["verify", "canary", "done"]
    assert {"phase": "download", "file": "unet\x1b.safetensors", "done_bytes": 100,
            "total_bytes": 100} in records  # fmt: skip
    assert len(records) < 10


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@box:6379/0",
        "rediss://user:s3cret@box/0",
        "redis://:s3cret@s3cret@box/0",
        "redis://:s3/s3cret@box/0",
        "redis://box/0?password=s3cret&x=1",
    ],
)
def test_config_hides_passwords(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDQ_REDIS", url)
    config()
    out = capfd.readouterr().out
    assert "s3cret" not in out
    assert "box" in out


def test_config_says_where_values_come_from(
    monkeypatch: pytest.MonkeyPatch, sdq_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sdq_home.mkdir()
    (sdq_home / "config.toml").write_text("[server]\nport = 7000\n")
    monkeypatch.setenv("SDQ_SERVER", "gpu-box:1")
    assert main(["config", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capfd.readouterr().out.splitlines())}
    assert rows["client.server"] == {
        "name": "client.server", "value": "gpu-box:1", "source": "SDQ_SERVER",
    }  # fmt: skip
    assert rows["server.port"]["value"] == 7000
    assert rows["server.port"]["source"].endswith("config.toml")
    assert rows["worker.device"]["source"] == "default"
    assert main(["config"]) == 0
    assert "gpu-box:1" in capfd.readouterr().out
