"""Schedulers by name, and loading that fails in words."""

from pathlib import Path

import msgspec
import pytest
import torch

from sdq.errors import ModelError
from sdq.metadata import SAMPLER_NAMES
from sdq.protocol.model import ModelManifest
from sdq.worker import pipelines
from sdq.worker.devices import Device
from sdq.worker.refusals import is_full

# diffusers' schedulers hand torch's arrays to a numpy that has news for them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = Device(name="cpu", dtype="float32", label="cpu")


def test_every_scheduler_has_a_name_that_other_tools_know() -> None:
    assert set(pipelines.SCHEDULERS) == set(SAMPLER_NAMES)


@pytest.mark.parametrize("name", pipelines.SCHEDULERS)
def test_a_scheduler_keeps_the_models_settings(name: str) -> None:
    pipelines.silence()
    from diffusers import DDIMScheduler

    config = DDIMScheduler(prediction_type="v_prediction", beta_end=0.017).config
    first = pipelines.make_scheduler(name, config)
    assert type(first).__name__ == pipelines.SCHEDULERS[name][0]
    assert first.config.prediction_type == "v_prediction"
    assert first.config.beta_end == 0.017
    assert pipelines.make_scheduler(name, config) is not first


def test_set_scheduler_starts_from_what_the_pipeline_has() -> None:
    pipelines.silence()
    from diffusers import DDIMScheduler

    class Holder:
        scheduler = DDIMScheduler(beta_end=0.017)

    pipelines.set_scheduler(Holder, "euler")
    assert type(Holder.scheduler).__name__ == "EulerDiscreteScheduler"
    assert Holder.scheduler.config.beta_end == 0.017


def test_an_empty_folder_is_no_model(tmp_path: Path, manifest: ModelManifest) -> None:
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        pipelines.load(tmp_path, manifest, CPU)
    assert "sdq worker install" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "mps", "cpu"],
)
def test_a_load_that_fails_in_the_midst(
    tmp_path: Path, manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It is known for what it is, and leaves torch's settings to those that draw meanwhile."""

    def read(folder: Path, options: object) -> None:
        torch.set_default_dtype(torch.float16)  # as diffusers does, which forgets it then
        raise error

    monkeypatch.setattr(pipelines, "_from_folder", read)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu") as caught:
        pipelines.load(tmp_path, manifest, CPU)
    assert is_full(caught.value)
    assert torch.get_default_dtype() == torch.float32


def test_a_single_file_that_is_no_checkpoint(tmp_path: Path, manifest: ModelManifest) -> None:
    single = msgspec.structs.replace(manifest, kind="single_file")
    (tmp_path / "fake.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is no safetensors file") as caught:
        pipelines.load(tmp_path, single, CPU)
    assert "sdq worker install" in caught.value.hint


def test_a_single_file_is_one_file(tmp_path: Path, manifest: ModelManifest) -> None:
    broken = msgspec.structs.replace(manifest, kind="single_file", files=())
    with pytest.raises(ModelError, match="it has 0"):
        pipelines.load(tmp_path, broken, CPU)
