"""`sdq worker`: what is asked for arrives, what is installed is shown, and errors are plain."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sdq import config
from sdq.cli import options
from sdq.cli.main import main
from sdq.config import Home
from sdq.errors import DownloadError, UnknownModel, UsageError
from sdq.protocol.messages import WorkerSettings
from sdq.storage import LockFile
from sdq.testing.worker import fake_config, fake_manifest, fake_profile
from sdq.worker import models
from sdq.worker.install import Installed
from sdq.worker.profile import DrawOptions, options_of

DRAWING = ("--device", "cpu", "--dtype", "bfloat16", "--compile", "--offload", "none")


class FakeClient:
    """Knows three models."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    async def worker_setup(self, model: str | None = None) -> WorkerSettings:
        self.asked.append(model)
        if model not in (None, "shapes", "other"):
            raise UnknownModel(f"no model {model!r}")
        return WorkerSettings(1, "redis://", fake_manifest(model or "shapes"))


class Desk:
    """Stands where a server is asked and where models are installed."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.installed: list[tuple[str, DrawOptions, float]] = []

    def ask(self, server: str | None, question: Callable[[Any], Awaitable[Any]]) -> Any:
        async def answered() -> Any:
            return await question(self.client)

        return asyncio.run(answered())

    def install(
        self,
        settings: WorkerSettings,
        home: Home,
        *,
        options: DrawOptions,
        measure_seconds: float,
        report: object,
    ) -> Installed:
        model_id = settings.model.model_id
        self.installed.append((model_id, options, measure_seconds))
        return Installed(Path("/models"), model_id, "box-1", fake_profile())


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    monkeypatch.setattr("sdq.cli.worker.ask", desk.ask)
    monkeypatch.setattr("sdq.worker.install.install", desk.install)
    return desk


def test_install_with_all_its_flags(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    models = ("--model", "shapes", "--model", "other", "--model", "shapes")
    assert main(["worker", "install", *models, *DRAWING, "--measure", "5"]) == 0
    wanted = DrawOptions("cpu", "bfloat16", True, "none")
    assert desk.installed == [("shapes", wanted, 5.0), ("other", wanted, 5.0)]
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "next: sdq worker run " + " ".join(DRAWING)


def test_install_as_the_settings_say(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDQ_WORKER_DTYPE", "float16")
    monkeypatch.setenv("SDQ_WORKER_COMPILE", "no")
    assert main(["worker", "install", "--json"]) == 0
    assert desk.installed == [("shapes", DrawOptions(dtype="float16"), 60.0)]
    assert desk.client.asked == [None]
    captured = capfd.readouterr()
    assert [json.loads(line)["phase"] for line in captured.out.splitlines()] == ["installed"]
    assert captured.err == ""


def test_a_wrong_model_among_right_ones_costs_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", "install", "--model", "shapes", "--model", "sdxll"]) == 2
    assert desk.installed == []
    assert "no model 'sdxll'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--dtype", "half"), "worker.dtype: 'half' is not one of auto, float32"),
        (("--offload", "disk"), "worker.offload: 'disk' is not one of auto, none"),
        (("--measure", "-1"), "worker.measure_seconds"),
    ],
)
def test_a_flag_that_is_wrong(
    desk: Desk, flags: tuple[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", "install", *flags]) == 2
    assert words in capsys.readouterr().err
    assert desk.client.asked == []


def test_run_with_all_its_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[config.WorkerSettings] = []

    def run(home: Home, settings: config.WorkerSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("sdq.worker.app.run", run)
    memory = ("--keep-alive", "600", "--memory-budget", "6GiB")
    assert main(["worker", "run", *DRAWING, *memory]) == 0
    (settings,) = seen
    assert options_of(settings) == DrawOptions("cpu", "bfloat16", True, "none")
    assert (settings.keep_alive_seconds, settings.memory_budget_bytes) == (600.0, 6 * 1024**3)
    assert main(["worker", "run", "--memory-budget", "six"]) == 2
    assert "--memory-budget: 'six' is no size" in capsys.readouterr().err


def config_of(home: Path) -> models.WorkerConfig:
    written = fake_config("redis://:secret@host", "box-1", fake_manifest(), fake_manifest("other"))
    models.save_config(Home(home), written)
    return written


def test_what_is_installed(sdq_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config_of(sdq_home)
    assert main(["worker", "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["MODEL", "AT", "ONCE"]
    assert lines[1].split() == [
        *("shapes", "2", "0.02", "0.015", "float32", "none", "976.6", "KiB", "fake")
    ]
    assert [line.split()[0] for line in lines[1:]] == ["shapes", "other"]

    assert main(["worker", "list", "--json"]) == 0
    out = capfd.readouterr().out
    assert [json.loads(line)["model_id"] for line in out.splitlines()] == ["shapes", "other"]
    assert json.loads(out.splitlines()[0])["turn_seconds"] == {"1": 0.02, "2": 0.03, "4": 0.06}
    assert "secret" not in out


def test_nothing_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["list"], ["remove", "shapes"]):
        assert main(["worker", *command]) == 2
        assert "sdq worker install" in capsys.readouterr().err


def test_remove(sdq_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = config_of(sdq_home)
    assert main(["worker", "remove", "sd\x1bxl"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: 'sd\\x1bxl' is not installed here",
        "  hint: installed: shapes, other",
    ]
    assert main(["worker", "remove", "shapes"]) == 0
    folder = models.model_folder(Home(sdq_home), written.model)
    assert capsys.readouterr().err.splitlines() == [
        f"shapes is removed; its files stay in {folder}",
        "still installed: other",
    ]
    assert main(["worker", "remove", "other"]) == 0
    assert "it was the last one" in capsys.readouterr().err
    assert main(["worker", "run"]) == 2
    assert "no model is installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("1000", 1000), ("6GiB", 6 * 1024**3), ("6g", 6 * 1024**3)),
        *((" 1.5 MiB ", 3 * 1024**2 // 2), ("10 K", 10240), ("5B", 5), ("1T", 1024**4)),
    ],
)
def test_a_size(text: str, size_bytes: int) -> None:
    assert options.size_bytes(text, "--memory-budget") == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "6GB", "-1", "6 6", "1e999", "nan", "many", "6GiBB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--memory-budget") as caught:
        options.size_bytes(text, "--memory-budget")
    assert "6GiB" in caught.value.hint


def test_when_the_second_model_fails_the_first_one_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(settings: WorkerSettings, home: Home, **options: Any) -> Installed:
        if settings.model.model_id == "other":
            raise DownloadError("cannot fetch it", hint="this model is not installed")
        return desk.install(settings, home, **options)

    monkeypatch.setattr("sdq.worker.install.install", install)
    assert main(["worker", "install", "--model", "shapes", "--model", "other"]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        "installed before this failed: shapes",
        "error: cannot fetch it",
        "  hint: this model is not installed",
    ]


def test_a_wait_for_another_install_is_said_and_ctrl_c_ends_it(
    sdq_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real lock, held by this process; Ctrl-C comes while we wait."""
    monkeypatch.setattr("sdq.cli.worker.ask", Desk().ask)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with LockFile(Home(sdq_home).worker_dir / "install.lock"):
        monkeypatch.setattr("sdq.storage.time.sleep", interrupted)
        assert main(["worker", "install", "--device", "cpu"]) == 130
    assert f"shapes: waiting for another install in {sdq_home}" in capfd.readouterr().err
    assert not models.config_file(Home(sdq_home)).exists()
