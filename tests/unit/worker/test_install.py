"""Install: verified files, a proof picture, a measurement, and only then a configuration."""

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from sdq.config import Home
from sdq.errors import DownloadError, GenerationFailed, ModelError, UsageError
from sdq.protocol.messages import WorkerSettings
from sdq.protocol.model import ModelFile, ModelManifest, canary_spec, fingerprint_of
from sdq.testing.pipeline import FakePipeline, picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker import canary, devices, golden, models, trial
from sdq.worker import install as installing
from sdq.worker.calibration import Load
from sdq.worker.flight import Capacity
from sdq.worker.install import Installed, InstallProgress, install, remove
from sdq.worker.profile import DrawOptions
from sdq.worker.whole import as_pipeline

CONTENTS = {"config.json": b"{}", "unet/weights.safetensors": b"w" * 1000}
CPU = DrawOptions(device="cpu", dtype="float32")


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


def renamed(settings: WorkerSettings, model_id: str) -> WorkerSettings:
    """The same files under another name."""
    model = msgspec.structs.replace(settings.model, model_id=model_id)
    return msgspec.structs.replace(settings, model=model)


class Studio:
    """Stands where the real pipeline is loaded."""

    def __init__(self) -> None:
        self.pipeline: FakePipeline = SteppingFake(capacity=Capacity(4, 10**9))
        self.loads: list[tuple[str, DrawOptions]] = []

    def loader_of(self, folder: Path, manifest: ModelManifest, options: DrawOptions) -> Load:
        def load(device: devices.Device) -> trial.Loaded:
            self.loads.append((manifest.model_id, options))
            return trial.Loaded(as_pipeline(self.pipeline), "none", 1_000)

        return load


@pytest.fixture(autouse=True)
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    studio = Studio()
    monkeypatch.setattr(installing, "loader_of", studio.loader_of)
    return studio


def test_an_installation(home: Home, settings: WorkerSettings, studio: Studio) -> None:
    news: list[InstallProgress] = []
    installed = install(settings, home, options=CPU, report=news.append)
    assert installed == Installed(
        folder=models.model_folder(home, settings.model),
        model_id="shapes",
        worker_id=installed.worker_id,
        profile=installed.profile,
    )
    assert (installed.folder / "unet" / "weights.safetensors").read_bytes() == b"w" * 1000
    assert canary_spec(settings.model) in studio.pipeline.drawn
    phases = list(dict.fromkeys(progress.phase for progress in news))
    assert phases == ["verify", "download", "load", "canary", "measure", "done"]
    assert {progress.model_id for progress in news} == {"shapes"}
    downloads = [progress for progress in news if progress.phase == "download"]
    assert (downloads[-1].done_bytes, downloads[-1].total_bytes) == (1002, 1002)
    assert [found.at_once for found in news if found.phase == "measure"] == [1, 2, 4]
    config = models.load_config(home)
    assert config.redis_url == settings.redis_url
    assert config.model == settings.model
    assert config.worker_id == installed.worker_id
    assert config.models[0].profile == installed.profile
    assert installed.profile.options == CPU
    assert installed.profile.at_once == 4
    assert models.check_files(home, config.model) == installed.folder


def test_a_second_time_nothing_is_done(
    home: Home, settings: WorkerSettings, studio: Studio, tmp_path: Path
) -> None:
    first = install(settings, home, options=CPU)
    for path in CONTENTS:
        (tmp_path / "source" / path).unlink()
    second = install(settings, home, options=CPU)
    assert second.already
    assert second.worker_id == first.worker_id
    assert second.profile == first.profile
    assert len(studio.loads) == 1


def test_another_model_comes_beside_it(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    first = install(settings, home, options=CPU)
    second = install(renamed(settings, "other"), home, options=CPU)
    assert not second.already
    assert not second.is_moved
    assert second.worker_id == first.worker_id
    assert [held.model_id for held in models.load_config(home).held()] == ["shapes", "other"]
    assert install(settings, home, options=CPU).already
    assert install(renamed(settings, "other"), home, options=CPU).already
    assert [model_id for model_id, _ in studio.loads] == ["shapes", "other"]


def test_a_model_with_other_files_takes_the_place_of_its_namesake(
    home: Home, settings: WorkerSettings
) -> None:
    old = install(settings, home, options=CPU)
    install(renamed(settings, "other"), home, options=CPU)
    files = settings.model.files[:1]
    newer = msgspec.structs.replace(settings.model, files=files, fingerprint=fingerprint_of(files))
    new = install(msgspec.structs.replace(settings, model=newer), home, options=CPU)
    held = models.load_config(home).held()
    assert [(one.model_id, one.fingerprint) for one in held] == [
        ("shapes", newer.fingerprint),
        ("other", settings.model.fingerprint),
    ]
    assert new.folder != old.folder
    assert old.folder.is_dir()


def test_a_new_address_of_redis_is_taken_over_for_all_models(
    home: Home, settings: WorkerSettings
) -> None:
    first = install(settings, home, options=CPU)
    assert not first.is_moved
    install(renamed(settings, "other"), home, options=CPU)
    moved = msgspec.structs.replace(settings, redis_url="redis://elsewhere/0")
    again = install(moved, home, options=CPU)
    assert (again.worker_id, again.already, again.is_moved) == (first.worker_id, True, True)
    config = models.load_config(home)
    assert config.redis_url == "redis://elsewhere/0"
    assert len(config.models) == 2


@pytest.mark.parametrize(
    "options",
    [DrawOptions(device="cpu", dtype="bfloat16"), msgspec.structs.replace(CPU, compile=True)],
)
def test_other_options_need_another_measurement(
    home: Home, settings: WorkerSettings, studio: Studio, options: DrawOptions
) -> None:
    install(settings, home, options=CPU)
    again = install(settings, home, options=options)
    assert not again.already
    assert again.profile.options == options
    assert [asked for _, asked in studio.loads] == [CPU, options]


def test_another_device_under_the_same_name_does_too(
    home: Home, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(settings, home, options=CPU)
    other = devices.Device("cpu", "float32", "cpu (x86_64, 64 threads)")
    monkeypatch.setattr(installing, "choose", lambda device, dtype: other)
    again = install(settings, home, options=CPU)
    assert not again.already
    assert again.profile.device_label == other.label


def test_a_device_that_is_not_there_costs_no_download(home: Home, settings: WorkerSettings) -> None:
    for options in (DrawOptions(device="gpu"), DrawOptions(device="xpu:7")):
        with pytest.raises(UsageError):
            install(settings, home, options=options)
    assert not models.model_folder(home, settings.model).exists()
    assert not models.config_file(home).exists()


def test_what_was_not_measured_is_measured_later(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    assert install(settings, home, options=CPU, measure_seconds=0).profile.turn_seconds == {}
    assert install(settings, home, options=CPU, measure_seconds=0).already
    measured = install(settings, home, options=CPU)
    assert not measured.already
    assert set(measured.profile.turn_seconds) == {1, 2, 4}
    assert install(settings, home, options=CPU, measure_seconds=0).profile == measured.profile


class Impatient(SteppingFake):
    """Somebody presses Ctrl-C in the middle of a turn of two."""

    def step(self, flights: Any) -> Any:
        if len(flights) == 2:
            raise KeyboardInterrupt
        return super().step(flights)


def test_ctrl_c_in_the_measurement_leaves_all_as_it_was(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    install(settings, home, options=CPU)
    before = models.config_file(home).read_bytes()
    studio.pipeline = Impatient(capacity=Capacity(4, 10**9))
    with pytest.raises(KeyboardInterrupt):
        install(renamed(settings, "other"), home, options=CPU)
    assert models.config_file(home).read_bytes() == before
    studio.pipeline = SteppingFake()
    assert not install(renamed(settings, "other"), home, options=CPU).already


def test_a_model_is_removed_and_its_files_stay(home: Home, settings: WorkerSettings) -> None:
    first = install(settings, home, options=CPU)
    other = install(renamed(settings, "other"), home, options=CPU)
    with pytest.raises(UsageError, match="'sdxl' is not installed here") as caught:
        remove(home, "sdxl")
    assert caught.value.hint == "installed: shapes, other"

    removed = remove(home, "shapes")
    assert (removed.folder, removed.left) == (first.folder, ("other",))
    assert (first.folder / "config.json").exists()
    assert [held.model_id for held in models.load_config(home).held()] == ["other"]

    assert remove(home, "other").left == ()
    with pytest.raises(UsageError, match="no model is installed"):
        models.load_config(home)
    with pytest.raises(UsageError, match="no model is installed"):
        remove(home, "other")
    elsewhere = msgspec.structs.replace(settings, redis_url="redis://elsewhere/0")
    again = install(elsewhere, home, options=CPU)
    assert (again.worker_id, again.is_moved) == (other.worker_id, False)


def test_the_configuration_of_an_older_sdq_gives_its_name_away(
    home: Home, settings: WorkerSettings
) -> None:
    document = {"redis_url": "redis://old/0", "worker_id": "box-1", "models": [{"canary": {}}]}
    models.write_private(models.config_file(home), msgspec.json.encode(document))
    installed = install(settings, home, options=CPU)
    assert installed.worker_id == "box-1"
    assert not installed.already


def test_after_a_worker_broke_nothing_is_taken_at_its_word(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    installed = install(settings, home, options=CPU)
    weights = installed.folder / "unet" / "weights.safetensors"
    before = weights.stat()
    weights.write_bytes(b"x" * 1000)  # a damage that size and time do not show
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert install(settings, home, options=CPU).already
    canary.mark(home, "NaN")
    assert not install(settings, home, options=CPU).already
    assert weights.read_bytes() == b"w" * 1000
    assert len(studio.loads) == 2
    assert not canary.is_marked(home)


def test_a_broken_worker_stays_marked_until_a_proof_succeeds(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    install(settings, home, options=CPU)
    canary.mark(home, "NaN")
    studio.pipeline = FakePipeline(nan_on="circle")
    with pytest.raises(ModelError, match="proof picture failed on cpu"):
        install(settings, home, options=CPU)
    assert canary.is_marked(home)
    studio.pipeline = FakePipeline()
    assert not install(settings, home, options=CPU).already
    assert not canary.is_marked(home)


def test_only_what_is_wrong_is_fetched_again(home: Home, settings: WorkerSettings) -> None:
    installed = install(settings, home, options=CPU)
    (installed.folder / "config.json").write_bytes(b"spoilt")
    news: list[InstallProgress] = []
    again = install(settings, home, options=CPU, report=news.append)
    assert not again.already
    assert {found.file for found in news if found.phase == "download"} == {"config.json"}
    assert (installed.folder / "config.json").read_bytes() == b"{}"


def test_a_wrong_hash_leaves_no_configuration(
    home: Home, settings: WorkerSettings, tmp_path: Path
) -> None:
    (tmp_path / "source" / "config.json").write_bytes(b"[]")
    with pytest.raises(DownloadError, match="wrong hash"):
        install(settings, home, options=CPU)
    assert not models.config_file(home).exists()


@pytest.mark.parametrize("reason", ["black", "nan", "out_of_memory", "fail"])
def test_a_canary_that_fails_leaves_no_configuration(
    home: Home, settings: WorkerSettings, studio: Studio, reason: str
) -> None:
    studio.pipeline = FakePipeline(**{f"{reason}_on": "circle"})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="proof picture failed on cpu") as caught:
        install(settings, home, options=CPU)
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
    home: Home,
    settings: WorkerSettings,
    studio: Studio,
    picture: Image.Image,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(studio.pipeline, "finished", lambda spec: picture)
    with pytest.raises(ModelError, match=reason):
        install(settings, home, options=CPU)
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
    installed = install(settings, home, options=CPU)
    assert models.load_config(home).worker_id == installed.worker_id


def with_golden(settings: WorkerSettings, picture: Image.Image) -> WorkerSettings:
    model = msgspec.structs.replace(settings.model, golden=golden.encoded(picture))
    return msgspec.structs.replace(settings, model=model)


def test_a_picture_that_is_not_the_golden_one_leaves_no_configuration(
    home: Home, settings: WorkerSettings
) -> None:
    wrong = with_golden(settings, Image.new("RGB", (64, 64), (255, 255, 255)))
    with pytest.raises(ModelError, match=r"proof picture failed on cpu.*differ by \d") as caught:
        install(wrong, home, options=CPU)
    assert "--device" in caught.value.hint
    assert not models.config_file(home).exists()


def test_a_new_golden_picture_asks_for_a_new_proof(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    install(settings, home, options=CPU)
    right = with_golden(settings, picture_of(canary_spec(settings.model)))
    assert not install(right, home, options=CPU).already
    assert install(right, home, options=CPU).already
    assert len(studio.loads) == 2


def test_a_proof_without_a_measurement_keeps_what_was_measured(
    home: Home, settings: WorkerSettings, studio: Studio
) -> None:
    measured = install(settings, home, options=CPU)
    (measured.folder / "config.json").write_bytes(b"spoilt")
    again = install(settings, home, options=CPU, measure_seconds=0)
    assert not again.already
    assert again.profile == measured.profile
    canary.mark(home, "NaN")
    assert install(settings, home, options=CPU, measure_seconds=0).profile == measured.profile
    assert len(studio.loads) == 3
