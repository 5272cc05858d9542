"""A device with less memory than a model should have is said so, in words."""

import msgspec
import pytest

from sdq.config import WorkerSettings
from sdq.protocol.model import ModelManifest
from sdq.worker import memory
from sdq.worker.need import short_of_memory

HALVES = WorkerSettings(device="cpu", dtype="bfloat16")
FULL = WorkerSettings(device="cpu", dtype="float32")


def test_what_a_device_lacks(manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    large = msgspec.structs.replace(manifest, memory_bytes=8_000_000_000)
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: 9_000_000_000)
    assert short_of_memory(manifest, HALVES) == ""  # nobody has said what it needs
    assert short_of_memory(large, HALVES) == ""
    said = short_of_memory(large, FULL)  # full numbers take twice as much
    assert said.startswith("shapes should have 16.0 GB of memory in float32, cpu")
    assert "has 9.0 GB free" in said
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: None)
    assert short_of_memory(large, FULL) == ""
    elsewhere = WorkerSettings(device="xpu:9")
    assert short_of_memory(large, elsewhere) == ""  # an error of its own, elsewhere
