"""Files reach their place whole and right, or not at all."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.worker import download, http_source

BODY = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "RETRY_WAITS_SECONDS", (0.0, 0.0))


def a_file(*links: str, body: bytes = BODY, size_bytes: int | None = len(BODY)) -> ModelFile:
    return ModelFile(
        path="unet/weights.safetensors",
        size_bytes=size_bytes,
        sha256=hashlib.sha256(body).hexdigest(),
        links=links,
    )


def fetch(file: ModelFile, folder: Path) -> tuple[Path, list[int]]:
    target = folder / file.path
    seen: list[int] = []
    download.fetch_file(file, target, seen.append)
    return target, seen


def left_over(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_link_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "a source.bin"
    source.write_bytes(BODY)
    target, seen = fetch(a_file(source.as_uri()), tmp_path / "model")
    assert target.read_bytes() == BODY
    assert seen[-1] == len(BODY)
    assert left_over(tmp_path / "model") == ["unet/weights.safetensors"]


def test_a_builtin_link_copies_from_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package: Any = ModuleType("sdq_shapes")
    package.folder = lambda: tmp_path / "weights"
    monkeypatch.setitem(sys.modules, "sdq_shapes", package)
    (tmp_path / "weights" / "unet").mkdir(parents=True)
    (tmp_path / "weights" / "unet" / "w.bin").write_bytes(BODY)
    target, _ = fetch(a_file("builtin:shapes/unet/w.bin"), tmp_path / "model")
    assert target.read_bytes() == BODY


def test_a_builtin_link_stays_in_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package: Any = ModuleType("sdq_shapes")
    package.folder = lambda: tmp_path / "weights"
    monkeypatch.setitem(sys.modules, "sdq_shapes", package)
    (tmp_path / "secret").write_bytes(BODY)
    with pytest.raises(DownloadError, match="leads out of"):
        fetch(a_file("builtin:shapes/../secret"), tmp_path / "model")


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sdq_shapes", None)
    with pytest.raises(DownloadError, match=r"sdq-shapes.*pip install \./models/shapes"):
        fetch(a_file("builtin:shapes/w.bin"), tmp_path)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("builtin:other/w.bin", "no built-in model 'other'"),
        ("ftp://host/w.bin", "'ftp' are not known"),
        ("file://host/w.bin", "three slashes"),
        ("file:///nowhere/w.bin", "No such file"),
        ("hf://org/name", "write hf://org/name@revision/file"),
    ],
)
def test_links_that_lead_nowhere(tmp_path: Path, link: str, reason: str) -> None:
    with pytest.raises(DownloadError, match=reason):
        fetch(a_file(link), tmp_path)
    assert left_over(tmp_path) == []


def test_a_file_without_links(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="it has no link"):
        fetch(a_file(), tmp_path)


def test_a_wrong_hash_tells_both_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    wrong = bytes(len(BODY))
    source.write_bytes(wrong)
    with pytest.raises(DownloadError) as caught:
        fetch(a_file(source.as_uri()), tmp_path / "model")
    assert hashlib.sha256(BODY).hexdigest() in caught.value.message
    assert hashlib.sha256(wrong).hexdigest() in caught.value.message
    assert left_over(tmp_path / "model") == []


def test_a_wrong_size_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"short")
    with pytest.raises(DownloadError, match=f"expected {len(BODY)} bytes, found 5"):
        fetch(a_file(source.as_uri()), tmp_path / "model")


def test_the_next_link_is_taken(web: Any, tmp_path: Path) -> None:
    web.body, web.answers = BODY, [404]
    target, _ = fetch(a_file(f"{web.url}/gone", f"{web.url}/here"), tmp_path)
    assert target.read_bytes() == BODY
    assert web.paths == ["/gone", "/here"]


def test_dead_links_are_told_with_the_reason_of_each(web: Any, tmp_path: Path) -> None:
    web.answers = [404, 403]
    with pytest.raises(DownloadError) as caught:
        fetch(a_file(f"{web.url}/a", f"{web.url}/b"), tmp_path)
    assert "/a: the server answered 404 Not Found" in caught.value.message
    assert "/b: the server answered 403 Forbidden" in caught.value.message


def test_a_rotten_part_is_fetched_anew(web: Any, tmp_path: Path) -> None:
    web.body = BODY
    part = tmp_path / "unet" / "weights.safetensors.part"
    part.parent.mkdir()
    part.write_bytes(bytes(len(BODY)))
    target, _ = fetch(a_file(f"{web.url}/w"), tmp_path)
    assert target.read_bytes() == BODY


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "unet").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="cannot write"):
        fetch(a_file("file:///dev/null"), tmp_path)


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/passwd", "."])
def test_paths_do_not_leave_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadError, match="leads out of"):
        download.place(tmp_path / "model", path)


def test_symbolic_links_do_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "unet").symlink_to(tmp_path)
    with pytest.raises(DownloadError, match="leads out of"):
        download.place(tmp_path / "model", "unet/w.bin")
