"""Memory for all models of a worker."""

import pytest

from sdq.worker import memory
from sdq.worker.budget import budget_bytes
from sdq.worker.devices import Device

CPU = Device(name="cpu", dtype="float32", label="cpu")
GPU = Device(name="cuda", dtype="float16", label="gpu")


def test_what_a_person_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: 1_000)
    assert budget_bytes(GPU, 5_000) == 5_000


@pytest.mark.parametrize(("device", "share"), [(CPU, 0.8), (GPU, 0.9)])
def test_nearly_all_that_is_free(
    device: Device, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", {device.name: 1_000}.get)
    assert budget_bytes(device) == 1_000 * share


def test_no_limit_where_nobody_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device_name: None)
    assert budget_bytes(GPU) == 0


def test_this_computer_has_some() -> None:
    assert 0 < budget_bytes(CPU) < 2**50
