"""Which of the installed models a worker draws with, and how. Nothing is loaded here."""

import hashlib
import logging
from pathlib import Path

import msgspec
import pytest

from sdq.broker import HeldModel
from sdq.config import Home, WorkerSettings
from sdq.errors import ModelError, UsageError
from sdq.protocol.model import ModelFile, ModelManifest, canary_spec, fingerprint_of
from sdq.testing.worker import fake_manifest, fake_profile
from sdq.worker import models
from sdq.worker.devices import CPU_CAPACITY, choose
from sdq.worker.models import InstalledModel
from sdq.worker.profile import DrawOptions
from sdq.worker.supply import supply_of

CPU = WorkerSettings(device="cpu")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def installed(home: Home) -> list[InstalledModel]:
    """Two models whose files are right, one of them measured on this device."""
    here = fake_profile(
        options=DrawOptions(device="cpu"), device_label=choose("cpu").label, at_once=16
    )
    return [
        InstalledModel(laid_down(home, "first"), fake_profile()),
        InstalledModel(laid_down(home, "second"), here),
    ]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def laid_down(home: Home, model_id: str) -> ModelManifest:
    data = model_id.encode()
    file = ModelFile("w.safetensors", len(data), hashlib.sha256(data).hexdigest(), ())
    manifest = msgspec.structs.replace(
        fake_manifest(model_id), files=(file,), fingerprint=fingerprint_of((file,))
    )
    folder = models.model_folder(home, manifest)
    folder.mkdir(parents=True)
    (folder / file.path).write_bytes(data)
    return manifest


def test_what_was_measured_counts_and_else_what_is_usual(
    home: Home, installed: list[InstalledModel], said: pytest.LogCaptureFixture
) -> None:
    supply = supply_of(home, installed, CPU)
    first, second = supply.holdings
    manifests = [one.manifest for one in installed]
    assert supply.names == "first, second"
    assert supply.held == tuple(HeldModel(one.model_id, one.fingerprint) for one in manifests)
    assert (first.model_id, first.needs_bytes) == ("first", 0)
    assert (second.needs_bytes, supply.at_once) == (3_000_000, 16)
    assert second.canary == canary_spec(manifests[1])
    assert supply.faulty == {}
    assert supply.budget_bytes > 0
    assert "first: measured on another device" in said.text
    assert "second" not in said.text


def test_one_model_has_all_the_memory_and_usually_draws_so_many_at_once(
    home: Home, installed: list[InstalledModel]
) -> None:
    supply = supply_of(home, installed[:1], CPU)
    assert (supply.budget_bytes, supply.at_once) == (0, CPU_CAPACITY.pictures)


def test_the_memory_for_all_of_them_is_a_setting(
    home: Home, installed: list[InstalledModel]
) -> None:
    settings = WorkerSettings(device="cpu", memory_budget_bytes=5_000_000)
    assert supply_of(home, installed, settings).budget_bytes == 5_000_000


def test_a_model_that_lost_its_files_leaves_the_others(
    home: Home, installed: list[InstalledModel], said: pytest.LogCaptureFixture
) -> None:
    lost = models.model_folder(home, installed[0].manifest) / "w.safetensors"
    lost.unlink()
    supply = supply_of(home, installed, CPU)
    assert supply.names == "second"
    assert list(supply.faulty) == ["first"]
    assert "w.safetensors is missing" in supply.faulty["first"]
    assert "sdq worker install" in said.text


def test_without_a_sound_model_there_is_no_worker(
    home: Home, installed: list[InstalledModel]
) -> None:
    for one in installed:
        (models.model_folder(home, one.manifest) / "w.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="has changed since it was installed"):
        supply_of(home, installed, CPU)


def test_a_device_that_is_not_there(home: Home, installed: list[InstalledModel]) -> None:
    with pytest.raises(UsageError, match="is no device"):
        supply_of(home, installed, WorkerSettings(device="abacus"))
