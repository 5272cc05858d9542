"""What a link means."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from sdq.errors import DownloadError
from sdq.worker.fetch.faults import Unreachable
from sdq.worker.fetch.links import Address, resolve


def test_addresses_of_the_web_are_taken_as_they_are() -> None:
    assert resolve("https://example.org/a%20b?x=1", {}) == Address("https://example.org/a%20b?x=1")


def test_hub_links() -> None:
    link = "hf://org/name@abc123/unet/w.safetensors"
    url = "https://huggingface.co/org/name/resolve/abc123/unet/w.safetensors"
    assert resolve(link, {}) == Address(url)
    mirror = {"HF_ENDPOINT": "http://mirror:8080/", "HF_TOKEN": "secret"}
    url = "http://mirror:8080/org/name/resolve/main/w.safetensors"
    assert resolve("hf://org/name/w.safetensors", mirror) == Address(url, "secret")


@pytest.mark.parametrize("rest", ["//org", "//org/name@rev", "//org/name@rev/", "///name/f"])
def test_broken_hub_links(rest: str) -> None:
    with pytest.raises(Unreachable, match="hf://org/name@revision/file"):
        resolve("hf:" + rest, {})


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ("https://drive.google.com/file/d/1AbC_d-9/view?usp=sharing", "id=1AbC_d-9"),
        ("https://drive.google.com/open?id=1AbC_d-9", "id=1AbC_d-9"),
        ("https://drive.google.com/uc?export=download&id=1AbC_d-9", "id=1AbC_d-9"),
        ("https://drive.google.com/u/0/file/d/1AbC_d-9/edit", "id=1AbC_d-9"),
    ],
)
def test_share_links_of_drive_lead_to_the_file(link: str, query: str) -> None:
    url = f"https://drive.usercontent.google.com/download?{query}&export=download"
    assert resolve(link, {}) == Address(url)


def test_a_resource_key_of_drive_is_kept() -> None:
    found = resolve("https://drive.google.com/file/d/1A/view?resourcekey=0-x", {})
    assert isinstance(found, Address)
    assert found.url.endswith("?id=1A&export=download&resourcekey=0-x")


def test_a_folder_of_drive_is_refused_in_words() -> None:
    with pytest.raises(Unreachable, match="a folder cannot be fetched"):
        resolve("https://drive.google.com/drive/folders/1AbC", {})


def test_files_of_this_computer() -> None:
    assert resolve("file:///srv/my%20models/x.json", {}) == Path("/srv/my models/x.json")
    with pytest.raises(Unreachable, match="three slashes"):
        resolve("file://srv/x.json", {})
    with pytest.raises(Unreachable, match="names no file"):
        resolve("file:///srv/x%00.json", {})


def test_built_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = ModuleType("sdq_shapes")
    package.folder = lambda: tmp_path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sdq_shapes", package)
    assert resolve("builtin:shapes/unet/config.json", {}) == tmp_path / "unet" / "config.json"
    with pytest.raises(DownloadError, match="leads out of"):
        resolve("builtin:shapes/../../etc/passwd", {})


def test_a_built_in_lora(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = ModuleType("sdq_shapes")
    monkeypatch.setitem(sys.modules, "sdq_shapes", package)
    with pytest.raises(Unreachable, match=r"older than this sdq.*pip install --upgrade sdq-shapes"):
        resolve("builtin:shapes-loras/neon.safetensors", {})
    package.loras = lambda: tmp_path  # type: ignore[attr-defined]
    found = resolve("builtin:shapes-loras/neon.safetensors", {})
    assert found == tmp_path / "neon.safetensors"
    with pytest.raises(DownloadError, match="leads out of"):
        resolve("builtin:shapes-loras/../weights/model_index.json", {})


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sdq_shapes", None)
    with pytest.raises(Unreachable, match="pip install --upgrade sdq-shapes"):
        resolve("builtin:shapes/x.json", {})


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("ftp://host/f", "'ftp'"),
        ("builtin:nothing/x", "known are: shapes"),
        ("https://[/model.safetensors", "no address"),
        ("file://[/model.safetensors", "no address"),
    ],
)
def test_links_that_lead_nowhere(link: str, reason: str) -> None:
    with pytest.raises(Unreachable, match=reason):
        resolve(link, {})


def test_a_token_goes_along_within_its_host_only() -> None:
    hub = Address("https://hub.example/a?b", "secret")
    assert hub.at("https://HUB.example/c") == Address("https://HUB.example/c", "secret")
    for url in ("http://hub.example/c", "https://hub.example:8443/c", "https://hub.example.org/c"):
        assert hub.at(url) == Address(url)
