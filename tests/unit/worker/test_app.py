"""What `run` refuses before it takes a job."""

from pathlib import Path

import pytest

from sdq.config import Home, WorkerSettings, load
from sdq.errors import ModelError, UsageError
from sdq.testing.worker import fake_config
from sdq.worker import app, models

CPU = WorkerSettings(device="cpu")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_nothing_is_installed(home: Home) -> None:
    with pytest.raises(UsageError, match="no model is installed"):
        app.run(home, CPU)


@pytest.mark.parametrize("concurrency", [-1, 65])
def test_how_many_at_once(home: Home, concurrency: int) -> None:
    with pytest.raises(UsageError, match="1 to 64 jobs"):
        app.run(home, WorkerSettings(device="cpu", concurrency=concurrency))


def test_files_that_are_missing(home: Home) -> None:
    models.save_config(home, fake_config("redis://host/0"))
    with pytest.raises(ModelError, match=r"fake\.safetensors is missing"):
        app.run(home, CPU)


def test_a_second_worker_in_the_same_home(home: Home) -> None:
    models.save_config(home, fake_config("redis://host/0"))
    lock = home.worker_dir / "run.lock"
    with models.locked(lock, wait=False), pytest.raises(UsageError, match="already") as caught:
        app.run(home, CPU)
    assert "SDQ_HOME" in caught.value.hint


def test_versions_are_those_of_the_packages() -> None:
    versions = app.installed_versions()
    assert list(versions) == ["sdq", "torch", "diffusers"]
    assert versions["torch"][0].isdigit()


def test_how_long_begun_pictures_may_go_on_is_a_setting(home: Home) -> None:
    environ = {"SDQ_HOME": str(home.root)}
    assert load(environ).worker.drain_seconds == 60.0
    chosen = load(environ | {"SDQ_WORKER_DRAIN_SECONDS": "0"})
    assert chosen.worker.drain_seconds == 0.0
    with pytest.raises(UsageError, match="SDQ_WORKER_DRAIN_SECONDS"):
        load(environ | {"SDQ_WORKER_DRAIN_SECONDS": "-1"})
