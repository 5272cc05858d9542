"""The asked device, or a clear no."""

import pytest

from sdq.errors import UsageError
from sdq.worker import devices


class FakeCuda:
    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def get_device_name(self, number: int) -> str:
        return f"NVIDIA H100 ({number})"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "cuda", FakeCuda())


def test_the_cpu_draws_in_single_precision() -> None:
    device = devices.choose("cpu")
    assert (device.name, device.dtype) == ("cpu", "float32")
    assert device.describe().startswith("cpu (")
    assert "thread" in device.describe()
    assert devices.choose("cpu:0") == device  # there is but one, and all ask for it by that name


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "name", "label"),
    [
        ("auto", "cuda", "NVIDIA H100 (0)"),
        ("cuda", "cuda", "NVIDIA H100 (0)"),
        ("cuda:1", "cuda:1", "NVIDIA H100 (1)"),
    ],
)
def test_a_gpu_draws_in_half_precision(asked: str, name: str, label: str) -> None:
    device = devices.choose(asked)
    assert (device.name, device.dtype, device.describe()) == (name, "float16", label)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("dtype", devices.DTYPES)
def test_a_precision_that_was_asked_for(dtype: str) -> None:
    assert devices.choose("cpu", dtype).dtype == dtype
    assert devices.choose("cuda", dtype).dtype == dtype


def test_a_word_that_is_no_precision() -> None:
    with pytest.raises(UsageError, match="'half' is no precision") as caught:
        devices.choose("cpu", "half")
    assert "auto, float32, bfloat16, float16" in caught.value.hint


def test_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    devices.settle(devices.Device("cpu", "float32", "cpu"))
    assert waited == []
    devices.settle(devices.Device("cuda:1", "float16", "gpu"))
    assert waited == ["cuda:1"]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_too_many() -> None:
    with pytest.raises(UsageError, match="cuda:2 is not there: torch finds 2") as caught:
        devices.choose("cuda:2")
    assert "cuda, cpu" in caught.value.hint


@pytest.mark.parametrize("asked", ["gpu", "", "cuda:", "cuda:x", "auto:1", "cuda:-1"])
def test_words_that_are_no_device(asked: str) -> None:
    with pytest.raises(UsageError, match="no device"):
        devices.choose(asked)


def test_a_device_that_this_computer_lacks() -> None:
    with pytest.raises(UsageError, match="xpu is not there"):
        devices.choose("xpu")
