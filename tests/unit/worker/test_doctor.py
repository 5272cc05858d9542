"""The look at a computer that draws: what it says, and the command that it names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdq.config import Home, WorkerSettings
from sdq.testing.worker import fake_config
from sdq.worker import doctor, models
from sdq.worker.doctor import Gpu, find_gpus

CARD = "NVIDIA H100 80GB HBM3, 550.54.15\n"


def torch(version: str, *kinds: str) -> Any:
    """A torch that can use these kinds of device."""

    def module(kind: str) -> Any:
        return SimpleNamespace(is_available=lambda: kind in kinds)

    backends = SimpleNamespace(mps=module("mps"))
    return SimpleNamespace(
        __version__=version, cuda=module("cuda"), xpu=module("xpu"), backends=backends
    )


def look(gpus: list[Gpu], found: Any, device: str = "cpu") -> list[tuple[str, str, str]]:
    findings = doctor.device(gpus, WorkerSettings(device=device), found)
    return [(one.about, one.state, one.command) for one in findings]


def nothing(_command: list[str]) -> str:
    return ""


def test_cards_of_nvidia_are_asked_for_by_their_own_tool(tmp_path: Path) -> None:
    two = find_gpus(lambda command: CARD * 2, tmp_path)
    assert two == [Gpu("cuda", "NVIDIA H100 80GB HBM3", "550.54.15")] * 2
    assert find_gpus(lambda command: "No devices were found\n", tmp_path) == []


def test_cards_are_found_by_their_files(tmp_path: Path) -> None:
    assert find_gpus(nothing, tmp_path) == []
    vendor = tmp_path / "sys/class/drm/card0/device/vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x8086\n")
    assert [gpu.kind for gpu in find_gpus(nothing, tmp_path)] == ["xpu"]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    assert [gpu.kind for gpu in find_gpus(nothing, tmp_path)] == ["rocm"]


def test_a_card_that_torch_can_use() -> None:
    found = look([Gpu("cuda", "H100", "550")], torch("2.13.0", "cuda"))
    assert found[0] == ("GPU", "ok", "")


@pytest.mark.parametrize(
    ("gpu", "version", "command"),
    [
        ("cuda", "2.13.0+cpu", "python -m pip install --force-reinstall torch==2.13.0"),
        (
            "rocm",
            "2.13.0",
            "python -m pip install --force-reinstall torch==2.13.0 "
            "--index-url https://download.pytorch.org/whl/rocm6.4",
        ),
        (
            "xpu",
            "2.13.0",
            "python -m pip install --force-reinstall torch==2.13.0 "
            "--index-url https://download.pytorch.org/whl/xpu",
        ),
    ],
)
def test_a_torch_that_cannot_use_the_card_is_mended_by_one_command(
    gpu: str, version: str, command: str
) -> None:
    assert look([Gpu(gpu, "a card")], torch(version))[0] == ("GPU", "problem", command)


def test_no_card_is_no_problem() -> None:
    assert look([], torch("2.13.0"))[0] == ("GPU", "note", "")


def test_a_device_that_is_not_there_is_a_problem() -> None:
    about, state, command = look([], torch("2.13.0"), device="cuda:7")[-1]
    assert (about, state) == ("device", "problem")
    assert "cpu" in command


def test_a_program_that_is_missing_or_fails_says_nothing() -> None:
    assert doctor._output_of(["no-such-program-here"]) == ""
    assert doctor._output_of(["false"]) == ""
    assert doctor._output_of(["echo", "here"]) == "here\n"


def test_the_password_of_redis_is_never_shown(free_port: int) -> None:
    finding = doctor.reach_redis(f"redis://:secret@127.0.0.1:{free_port}/0")
    assert finding.state == "problem"
    assert "secret" not in finding.text + finding.command


def test_redis_that_answers(redis_url: str) -> None:
    assert doctor.reach_redis(redis_url).state == "ok"


def test_a_home_without_models_says_what_to_type(tmp_path: Path) -> None:
    (finding,) = doctor.installation(Home(tmp_path), WorkerSettings())
    assert (finding.state, finding.command) == ("problem", "sdq worker install --server HOST")


def test_a_changed_model_is_named(tmp_path: Path, free_port: int) -> None:
    home = Home(tmp_path)
    models.save_config(home, fake_config(f"redis://127.0.0.1:{free_port}/0"))
    found = {finding.about: finding for finding in doctor.installation(home, WorkerSettings())}
    assert found["shapes"].command == "sdq worker install --model shapes"
    assert "missing" in found["shapes"].text


def test_little_room_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.disk(Home(tmp_path / "not" / "there")).about == "disk"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    finding = doctor.disk(Home(tmp_path))
    assert (finding.state, finding.command) == ("note", "export SDQ_HOME=/another/place")
