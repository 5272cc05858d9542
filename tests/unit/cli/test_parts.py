"""The commands that run a part: their flags arrive as settings. And `sdq config`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sdq.cli.config import config
from sdq.cli.main import main
from sdq.config import Home, Settings, WorkerSettings


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

    def run_up(settings: Settings, *, models: Sequence[str] = ()) -> int:
        seen.extend([settings, models])
        return 0

    monkeypatch.setattr("sdq.stack.up.run_up", run_up)
    flags = ["--port", "7000", "--device", "cpu", "--concurrency", "3"]
    assert main(["up", *flags, "--model", "m", "--model", "n"]) == 0
    settings, models = seen
    assert settings.server.port == 7000
    assert (settings.worker.device, settings.worker.concurrency) == ("cpu", 3)
    assert models == ["m", "n"]


def test_worker_run(monkeypatch: pytest.MonkeyPatch, sdq_home: Path) -> None:
    seen: list[Any] = []

    def run(home: Home, settings: WorkerSettings) -> int:
        seen.extend([home.root, settings])
        return 143

    monkeypatch.setattr("sdq.worker.app.run", run)
    assert main(["worker", "run", "--concurrency", "4", "--device", "cpu"]) == 143
    home, settings = seen
    assert home == sdq_home
    assert (settings.concurrency, settings.device, settings.drain_seconds) == (4, "cpu", 60.0)


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
