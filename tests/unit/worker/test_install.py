"""Install: verified files, a proof picture, and only then a configuration."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from PIL import Image

from sdq.config import Home
from sdq.errors import DownloadError, GenerationFailed, ModelError
from sdq.protocol.messages import WorkerSettings
from sdq.protocol.model import ModelFile, ModelManifest, canary_spec, fingerprint_of
from sdq.testing.pipeline import FakePipeline
from sdq.worker import canary, models, pipelines, stepping
from sdq.worker.install import Installed, InstallProgress, install

CONTENTS = {"config.json": b"{}", "unet/weights.safetensors": b"w" * 1000}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def settings(tmp_path: Path, manifest: ModelManifest) -> WorkerSettings:
    files = []
    for path, data in CONTENTS.items():
        source = tmp_path / "source" / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        files.append(ModelFile(path, len(data), digest, (source.as_uri(),)))
    model = msgspec.structs.replace(manifest, files=tuple(files), fingerprint=fingerprint_of(files))
    return WorkerSettings(request_id=1, redis_url="redis://:password@host/0", model=model)


class Studio:
    """Stands where the real pipeline is loaded."""

    def __init__(self) -> None:
        self.pipeline: Any = FakePipeline()
        self.loads = 0

    def load(self, folder: Path, manifest: ModelManifest, device: Any) -> Any:
        self.loads += 1
        return SimpleNamespace(scheduler=None)


@pytest.fixture(autouse=True)
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    studio = Studio()
    monkeypatch.setattr(pipelines, "load", studio.load)
    monkeypatch.setattr(stepping, "engine_pipeline", lambda loaded, device: studio.pipeline)
    return studio


def test_an_installation(home: Home, settings: WorkerSettings, studio: Studio) -> None:
    news: list[InstallProgress] = []
    installed = install(settings, home, device="cpu", report=news.append)
    assert installed == Installed(
        folder=models.model_folder(home, settings.model),
        model_id="shapes",
        canary_seconds=installed.canary_seconds,
        worker_id=installed.worker_id,
    )
    assert (installed.folder / "unet" / "weights.safetensors").read_bytes() == b"w" * 1000
    assert studio.pipeline.drawn == [canary_spec(settings.model)]
    phases = list(dict.fromkeys(progress.phase for progress in news))
    assert phases == ["verify", "download", "canary", "done"]
    downloads = [progress for progress in news if progress.phase == "download"]
    assert (downloads[-1].done_bytes, downloads[-1].total_bytes) == (1002, 1002)
    config = models.load_config(home)
    assert config.redis_url == settings.redis_url
    assert config.model == settings.model
    assert config.worker_id == installed.worker_id
    assert models.check_files(home, config.model) == installed.folder


def test_a_second_time_nothing_is_done(
    home: Home, settings: WorkerSettings, studio: Studio, tmp_path: Path
) -> None:
    first = install(settings, home, device="cpu")
    for path in CONTENTS:
        (tmp_path / "source" / path).unlink()
    second = install(settings, home, device="cpu")
    assert second.already
    assert second.worker_id == first.worker_id
    assert second.canary_seconds == first.canary_seconds
    assert studio.loads == 1


def test_a_new_address_of_redis_is_taken_over(home: Home, settings: WorkerSettings) -> None:
    first = install(settings, home, device="cpu")
    moved = msgspec.structs.replace(settings, redis_url="redis://elsewhere/0")
    assert install(moved, home, device="cpu").worker_id == first.worker_id
    assert models.load_config(home).redis_url == "redis://elsewhere/0"


def test_another_device_needs_another_proof(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    install(settings, home, device="cpu")
    assert not install(settings, home, device="auto").already
    assert studio.loads == 2


def test_after_a_worker_broke_nothing_is_taken_at_its_word(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    installed = install(settings, home, device="cpu")
    weights = installed.folder / "unet" / "weights.safetensors"
    before = weights.stat()
    weights.write_bytes(b"x" * 1000)  # a damage that size and time do not show
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert install(settings, home, device="cpu").already
    canary.mark(home, "NaN")
    assert not install(settings, home, device="cpu").already
    assert weights.read_bytes() == b"w" * 1000
    assert studio.loads == 2
    assert not canary.is_marked(home)


def test_a_broken_worker_stays_marked_until_a_proof_succeeds(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    install(settings, home, device="cpu")
    canary.mark(home, "NaN")
    studio.pipeline = FakePipeline(nan_on="circle")
    with pytest.raises(ModelError, match="proof picture failed on cpu"):
        install(settings, home, device="cpu")
    assert canary.is_marked(home)
    studio.pipeline = FakePipeline()
    assert not install(settings, home, device="cpu").already
    assert not canary.is_marked(home)


def test_only_what_is_wrong_is_fetched_again(home: Home, settings: WorkerSettings) -> None:
    installed = install(settings, home, device="cpu")
    (installed.folder / "config.json").write_bytes(b"spoilt")
    news: list[InstallProgress] = []
    again = install(settings, home, device="cpu", report=news.append)
    assert not again.already
    assert {found.file for found in news if found.phase == "download"} == {"config.json"}
    assert (installed.folder / "config.json").read_bytes() == b"{}"


def test_a_wrong_hash_leaves_no_configuration(
    home: Home, settings: WorkerSettings, tmp_path: Path
) -> None:
    (tmp_path / "source" / "config.json").write_bytes(b"[]")
    with pytest.raises(DownloadError, match="wrong hash"):
        install(settings, home, device="cpu")
    assert not models.config_file(home).exists()


@pytest.mark.parametrize("reason", ["black", "nan", "out_of_memory", "fail"])
def test_a_canary_that_fails_leaves_no_configuration(
    home: Home, settings: WorkerSettings, studio: Studio, reason: str
) -> None:
    studio.pipeline = FakePipeline(**{f"{reason}_on": "circle"})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="proof picture failed on cpu") as caught:
        install(settings, home, device="cpu")
    assert not isinstance(caught.value, GenerationFailed)
    assert not models.config_file(home).exists()


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (Image.new("RGB", (64, 64), (9, 8, 7)), "single flat colour"),
        (Image.new("RGB", (32, 32), (9, 8, 7)), "32x32 instead of 64x64"),
    ],
)
def test_a_canary_that_is_no_picture(
    home: Home, settings: WorkerSettings, studio: Studio, picture: Image.Image, reason: str
) -> None:
    studio.pipeline = SimpleNamespace(draw=lambda spec, on_step: picture)
    with pytest.raises(ModelError, match=reason):
        install(settings, home, device="cpu")
    assert not models.config_file(home).exists()


def test_a_description_that_contradicts_itself(home: Home, settings: WorkerSettings) -> None:
    model = msgspec.structs.replace(settings.model, fingerprint="0" * 64)
    with pytest.raises(ModelError, match="contradicts itself"):
        install(msgspec.structs.replace(settings, model=model), home)


def test_a_file_outside_of_the_folder_is_refused(
    home: Home, settings: WorkerSettings, tmp_path: Path
) -> None:
    outside = msgspec.structs.replace(settings.model.files[0], path="a/../../../../../out")
    model = msgspec.structs.replace(
        settings.model, files=(outside,), fingerprint=fingerprint_of([outside])
    )
    with pytest.raises(DownloadError, match="leads out of"):
        install(msgspec.structs.replace(settings, model=model), home)
    assert not (tmp_path / "out").exists()


def test_a_broken_configuration_is_replaced(home: Home, settings: WorkerSettings) -> None:
    home.worker_dir.mkdir(parents=True)
    models.config_file(home).write_text("broken")
    installed = install(settings, home, device="cpu")
    assert models.load_config(home).worker_id == installed.worker_id
