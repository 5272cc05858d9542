"""What is free, what weights take, what was in use at most, and what follows from it."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
import torch

from sdq.protocol.model import ModelFile, ModelManifest
from sdq.testing.tiny_models import tiny_pipeline
from sdq.worker import memory
from sdq.worker.memory import GIB, WORK_BYTES, Peak, Weights

MIB = 1024**2


@pytest.mark.parametrize(
    ("total", "largest", "free", "resting"),
    [
        (2 * GIB, 1 * GIB, None, "none"),  # nobody can say
        (2 * GIB, 1 * GIB, 2 * GIB + WORK_BYTES, "none"),
        (2 * GIB, 1 * GIB, 2 * GIB + WORK_BYTES - 1, "model"),
        (2 * GIB, 1 * GIB, 1 * GIB + WORK_BYTES, "model"),
        (2 * GIB, 1 * GIB, 1 * GIB + WORK_BYTES - 1, "sequential"),
        (7 * GIB, 5 * GIB, 8 * GIB, "model"),  # SDXL in halves on a card of 8 GB
        (7 * GIB, 5 * GIB, 4 * GIB, "sequential"),
        (2 * GIB, 2 * GIB, 4 * GIB, "none"),  # SD 1.5 on a card of 4 GB
    ],
)
def test_where_weights_rest(total: int, largest: int, free: int | None, resting: str) -> None:
    assert memory.offload_for(total, largest, free) == resting


def test_what_a_computer_has_free() -> None:
    free = memory.free_bytes("cpu")
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("max", "300"), ("current", "250"), ("stat", "anon 9\ninactive_file 90\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    files = (tmp_path, "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(memory, "_CGROUP_FILES", (files,))
    assert memory.free_bytes("cpu") == 140
    (tmp_path / "memory.max").write_text("max\n")
    assert (memory.free_bytes("cpu") or 0) > MIB


class FakeMemory:
    """Of an accelerator: what torch says of cuda and xpu."""

    def __init__(self) -> None:
        self.allocated, self.most, self.reserved = 100, 100, 150

    def mem_get_info(self, device: str) -> tuple[int, int]:
        assert device == "fake:1"
        return 1000, 5000

    def memory_allocated(self, device: str) -> int:
        return self.allocated

    def memory_reserved(self, device: str) -> int:
        return self.reserved

    def max_memory_allocated(self, device: str) -> int:
        return self.most

    def reset_peak_memory_stats(self, device: str) -> None:
        self.most = self.allocated


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeMemory:
    found = FakeMemory()
    monkeypatch.setattr(torch, "fake", found, raising=False)
    return found


def test_what_an_accelerator_has_free(fake: FakeMemory) -> None:
    assert memory.free_bytes("fake:1") == 1050  # torch keeps 50 that it does not use


def test_an_accelerator_that_does_not_tell(fake: FakeMemory) -> None:
    def refuses(device: str) -> None:
        raise RuntimeError("not supported")

    fake.mem_get_info = refuses  # type: ignore[assignment]
    assert memory.free_bytes("fake:1") is None


def test_an_accelerators_peak(fake: FakeMemory) -> None:
    fake.most = 900  # before
    with Peak("fake:1") as peak:
        fake.most = 400
    assert (peak.peak_bytes, peak.growth_bytes) == (400, 300)


def test_a_device_that_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "silent", SimpleNamespace(), raising=False)
    with Peak("silent") as peak:
        pass
    assert (peak.peak_bytes, peak.growth_bytes) == (None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_the_peak_of_a_process(trim: Callable[[], None]) -> None:
    torch.ones(96 * MIB, dtype=torch.uint8)  # before, and gone
    trim()
    with Peak("cpu") as peak:
        torch.ones(48 * MIB, dtype=torch.uint8)
    assert peak.growth_bytes is not None
    assert 40 * MIB < peak.growth_bytes < 80 * MIB
    assert (peak.peak_bytes or 0) > peak.growth_bytes


def saved(pipeline: Any, folder: Path, manifest: ModelManifest) -> ModelManifest:
    pipeline.save_pretrained(folder, safe_serialization=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return msgspec.structs.replace(
        manifest,
        files=tuple(
            ModelFile(str(path.relative_to(folder)), path.stat().st_size, "0" * 64, ())
            for path in files
        ),
    )


def test_weights_before_and_after_loading(tmp_path: Path, manifest: ModelManifest) -> None:
    pipeline = tiny_pipeline("sdxl")
    manifest = saved(pipeline, tmp_path, manifest)
    whole = memory.expected(tmp_path, manifest, "float32")
    loaded = memory.measured(pipeline)
    assert whole.total_bytes == pytest.approx(loaded.total_bytes, rel=0.01)
    assert whole.largest_part_bytes == loaded.largest_part_bytes
    assert memory.weights_bytes(pipeline) == loaded.total_bytes
    half = memory.expected(tmp_path, manifest, "float16")
    assert half == Weights(whole.total_bytes // 2, whole.largest_part_bytes // 2)


def test_only_the_halves_are_loaded_of_a_part_that_has_both(
    tmp_path: Path, manifest: ModelManifest
) -> None:
    pipeline = tiny_pipeline("sd1")
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    pipeline.unet.save_pretrained(tmp_path / "unet", safe_serialization=True, variant="fp16")
    both = saved(pipeline, tmp_path, manifest)
    assert len([file for file in both.files if file.path.startswith("unet/")]) == 3
    expected = memory.expected(tmp_path, both, "float32")
    assert expected.total_bytes == pytest.approx(memory.weights_bytes(pipeline), rel=0.01)


def test_parts_of_a_single_file(tmp_path: Path, manifest: ModelManifest) -> None:
    from safetensors.torch import save_file

    sizes = {
        "model.diffusion_model.a": 70,
        "model.diffusion_model.b": 30,
        "first_stage_model.a": 40,
        "cond_stage_model.a": 20,
    }
    weights = {name: torch.zeros(2, count // 2) for name, count in sizes.items()}
    save_file(weights, tmp_path / "fake.safetensors", metadata={"format": "pt"})
    single = msgspec.structs.replace(manifest, kind="single_file")
    assert memory.expected(tmp_path, single, "float16") == Weights(320, 200)
