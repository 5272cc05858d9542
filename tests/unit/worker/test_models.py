"""worker.json and the files that it speaks of."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sdq.config import Home
from sdq.errors import DownloadError, ModelError, OutputError, UsageError
from sdq.protocol.model import ModelFile, ModelManifest, fingerprint_of
from sdq.testing.worker import fake_config, fake_manifest, fake_profile
from sdq.worker import models

CONTENTS = {"config.json": b"{}", "unet/weights.safetensors": b"w" * 1000}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def held(home: Home, manifest: ModelManifest) -> ModelManifest:
    """A manifest whose files lie where they belong."""
    files = tuple(
        ModelFile(
            path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), links=()
        )
        for path, data in CONTENTS.items()
    )
    held = msgspec.structs.replace(manifest, files=files, fingerprint=fingerprint_of(files))
    folder = models.model_folder(home, held)
    for path, data in CONTENTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return held


def test_the_configuration_comes_back_and_is_private(home: Home) -> None:
    config = fake_config("redis://:password@host/0")
    models.save_config(home, config)
    models.save_config(home, config)
    assert models.load_config(home) == config
    path = models.config_file(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_no_configuration(home: Home) -> None:
    with pytest.raises(UsageError) as caught:
        models.load_config(home)
    assert caught.value.hint == "run `sdq worker install` first"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"redis_url": 5}', '{"redis_url": "", "worker_id": "a b"}', "\xff"]
)
def test_a_broken_configuration(home: Home, text: str) -> None:
    home.worker_dir.mkdir(parents=True)
    models.config_file(home).write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="is broken") as caught:
        models.load_config(home)
    assert "sdq worker install" in caught.value.hint


def test_a_configuration_without_a_model(home: Home) -> None:
    config = msgspec.structs.replace(fake_config("redis://"), models=())
    models.save_config(home, config)
    with pytest.raises(UsageError, match="no model is installed") as caught:
        models.load_config(home)
    assert "sdq worker install" in caught.value.hint
    assert models.read_config(home) == config


def test_a_configuration_of_an_older_sdq(home: Home, manifest: ModelManifest) -> None:
    older = {"manifest": manifest, "canary": {"device": "auto", "draw_seconds": 0.5}}
    document = {"redis_url": "redis://", "worker_id": "box-1", "models": [older]}
    models.write_private(models.config_file(home), msgspec.json.encode(document))
    with pytest.raises(UsageError, match="was written by an older sdq") as caught:
        models.load_config(home)
    assert caught.value.hint == "run `sdq worker install`"
    assert models.known_worker_id(home) == "box-1"


def test_models_come_and_go(manifest: ModelManifest) -> None:
    other = fake_manifest("other")
    config = fake_config("redis://", "box-1", manifest, other)
    assert config.model == manifest
    assert [held.model_id for held in config.held()] == ["shapes", "other"]
    assert config.find("other") == config.models[1]
    assert config.find("nothing") is None

    newer = models.InstalledModel(fake_manifest("shapes", "f" * 64), fake_profile(at_once=4))
    renewed = config.with_model(newer)
    assert renewed.models == (newer, config.models[1])
    third = models.InstalledModel(fake_manifest("third"), fake_profile())
    assert [held.model_id for held in renewed.with_model(third).held()] == [
        *("shapes", "other", "third")
    ]
    assert config.without("shapes").models == (config.models[1],)
    assert config.without("nothing") == config


@pytest.mark.parametrize("model_id", ["..", "../../etc", "a/b", "/etc"])
def test_the_id_of_a_model_stays_one_folder(
    home: Home, manifest: ModelManifest, model_id: str
) -> None:
    evil = msgspec.structs.replace(manifest, model_id=model_id)
    with pytest.raises((ModelError, DownloadError)):
        models.model_folder(home, evil)


def test_right_files_are_stamped_and_not_read_again(
    home: Home, held: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.check_files(home, held)
    assert set(models.read_stamps(folder)) == set(CONTENTS)

    def read_again(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(models, "sha256_of", read_again)
    assert models.check_files(home, held) == folder


def test_a_changed_file_is_named(home: Home, held: ModelManifest) -> None:
    folder = models.check_files(home, held)
    (folder / "unet" / "weights.safetensors").write_bytes(b"x" * 1000)
    with pytest.raises(ModelError, match=r"weights\.safetensors has changed") as caught:
        models.check_files(home, held)
    assert "sdq worker install" in caught.value.hint


def test_a_missing_file_is_named(home: Home, held: ModelManifest) -> None:
    folder = models.check_files(home, held)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        models.check_files(home, held)


def test_a_touched_file_is_read_and_found_right(home: Home, held: ModelManifest) -> None:
    folder = models.check_files(home, held)
    os.utime(folder / "config.json", ns=(1, 1))
    models.check_files(home, held)
    assert models.read_stamps(folder)["config.json"].mtime_ns == 1


def test_broken_stamps_cost_time_only(home: Home, held: ModelManifest) -> None:
    folder = models.check_files(home, held)
    (folder / models.STAMP_NAME).write_bytes(b"\xff{")
    assert models.check_files(home, held) == folder


def test_a_stamp_of_another_hash_does_not_count(home: Home, held: ModelManifest) -> None:
    models.check_files(home, held)
    other = msgspec.structs.replace(held.files[0], sha256="0" * 64)
    changed = msgspec.structs.replace(held, files=(other, *held.files[1:]))
    with pytest.raises(ModelError, match="has changed"):
        models.check_files(home, changed)


def test_a_lock_is_held_by_one_process_and_freed_by_its_end(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    code = (
        "import sys; from pathlib import Path; from sdq.worker.models import locked\n"
        "with locked(Path(sys.argv[1]), wait=False) as alone: print(alone)"
    )

    def in_another_process() -> str:
        root = Path(models.__file__).parents[2]
        run = subprocess.run(
            [sys.executable, "-c", code, str(lock)],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return run.stdout.strip()

    with models.locked(lock, wait=True) as alone:
        assert alone
        assert in_another_process() == "False"
    assert in_another_process() == "True"


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    home = Home(tmp_path / "home")
    with pytest.raises(OutputError, match="cannot write") as caught:
        models.save_config(home, fake_config("redis://"))
    assert "SDQ_HOME" in caught.value.hint
    with pytest.raises(OutputError), models.locked(home.worker_dir / "lock", wait=True):
        pass


def test_a_file_that_cannot_be_read_is_not_called_changed(home: Home, held: ModelManifest) -> None:
    folder = models.check_files(home, held)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        models.check_files(home, held)
