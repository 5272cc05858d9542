"""A model's files into its folder: fetched once, kept when they are right, refused when unsafe."""

import io
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from sdq.config import Home
from sdq.errors import DownloadError, ModelError
from sdq.protocol.model import ModelFile, ModelManifest, fingerprint_of
from sdq.testing.file_server import Fault, FileServer
from sdq.worker import models
from sdq.worker.bringing import bring
from sdq.worker.fetch import web as web_module

INDEX, WEIGHTS = b"{}", b"weights" * 1000
Told = list[tuple[str, str, int, int]]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "RETRY_WAITS_SECONDS", (0.0,))


@pytest.fixture
def web() -> Iterator[FileServer]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/model_index.json", INDEX)
        archive.writestr("model/unet/w.safetensors", WEIGHTS)
    files = {"/model_index.json": INDEX, "/unet/w.safetensors": WEIGHTS}
    with FileServer(files=files | {"/m.zip": packed.getvalue()}) as server:
        yield server


def manifest_of(web: FileServer, manifest: ModelManifest, *paths: str, kind: str) -> ModelManifest:
    files = tuple(
        ModelFile(
            path,
            len(web.files[f"/{path}"]),
            sha256(web.files[f"/{path}"]).hexdigest(),
            (f"{web.url}/{path}",),
        )
        for path in paths
    )
    return msgspec.structs.replace(
        manifest, files=files, kind=kind, fingerprint=fingerprint_of(files)
    )


@pytest.fixture
def loose(web: FileServer, manifest: ModelManifest) -> ModelManifest:
    return manifest_of(web, manifest, "model_index.json", "unet/w.safetensors", kind="folder")


@pytest.fixture
def packed(web: FileServer, manifest: ModelManifest) -> ModelManifest:
    return manifest_of(web, manifest, "m.zip", kind="archive")


def ignore(phase: str, file: str, done: int, total: int) -> None:
    """Nobody wants to know the progress."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def folder_of(home: Home, manifest: ModelManifest) -> Path:
    return models.model_folder(home, manifest)


@pytest.mark.parametrize("name", ["loose", "packed"])
def test_all_files_come_once(
    name: str, web: FileServer, home: Home, request: pytest.FixtureRequest
) -> None:
    manifest: ModelManifest = request.getfixturevalue(name)
    folder = folder_of(home, manifest)
    assert bring(manifest, folder, ignore)
    assert (folder / "model_index.json").read_bytes() == INDEX
    assert (folder / "unet/w.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "m.zip").exists()
    asked = len(web.requests)
    assert not bring(manifest, folder, ignore)
    assert not bring(manifest, folder, ignore, all_anew=True)
    assert len(web.requests) == asked
    assert models.check_files(home, manifest) == folder


@pytest.mark.parametrize("name", ["loose", "packed"])
@pytest.mark.parametrize("damage", [b"", b"x" * len(WEIGHTS), None], ids=["cut", "other", "gone"])
def test_a_changed_file_is_named_and_fetched_again(
    name: str, damage: bytes | None, web: FileServer, home: Home, request: pytest.FixtureRequest
) -> None:
    manifest: ModelManifest = request.getfixturevalue(name)
    folder = folder_of(home, manifest)
    bring(manifest, folder, ignore)
    weights = folder / "unet/w.safetensors"
    weights.unlink()
    if damage is not None:
        weights.write_bytes(damage)
    with pytest.raises(ModelError, match=r"unet/w\.safetensors (has changed|is missing)"):
        models.check_files(home, manifest)
    assert bring(manifest, folder, ignore)
    assert weights.read_bytes() == WEIGHTS
    models.check_files(home, manifest)


def test_a_change_behind_an_old_time_is_found_when_nothing_is_trusted(
    loose: ModelManifest, home: Home
) -> None:
    import os

    folder = folder_of(home, loose)
    bring(loose, folder, ignore)
    weights = folder / "unet/w.safetensors"
    before = weights.stat()
    weights.write_bytes(b"X" + WEIGHTS[1:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not bring(loose, folder, ignore)
    assert bring(loose, folder, ignore, all_anew=True)
    assert weights.read_bytes() == WEIGHTS


def test_what_was_verified_before_a_failure_stays(
    loose: ModelManifest, web: FileServer, home: Home
) -> None:
    folder = folder_of(home, loose)
    web.always["/unet/w.safetensors"] = Fault(status=404)
    with pytest.raises(DownloadError, match="404"):
        bring(loose, folder, ignore)
    web.always.clear()
    before = len(web.requests)
    assert bring(loose, folder, ignore)
    asked = {request.path for request in web.requests[before:]}
    assert "/unet/w.safetensors" in asked


def test_the_sum_of_all_files_is_told(loose: ModelManifest, home: Home) -> None:
    told: Told = []
    bring(loose, folder_of(home, loose), lambda *step: told.append(step))
    total = len(INDEX) + len(WEIGHTS)
    assert {step[3] for step in told} == {total}
    assert told[-1][2] == total
    assert [step[0] for step in told][:2] == ["verify", "verify"]


def test_pickles_are_not_even_asked_for(
    web: FileServer, manifest: ModelManifest, home: Home
) -> None:
    web.files["/unet/w.bin"] = b"pickle"
    unsafe = manifest_of(web, manifest, "model_index.json", "unet/w.bin", kind="folder")
    with pytest.raises(ModelError, match="pickle"):
        bring(unsafe, folder_of(home, unsafe), ignore)
    assert not web.requests


def test_a_broken_archive_leaves_nothing_to_draw_with(
    web: FileServer, manifest: ModelManifest, home: Home
) -> None:
    web.files["/m.zip"] = b"not an archive" * 100
    broken = manifest_of(web, manifest, "m.zip", kind="archive")
    with pytest.raises(ModelError, match="neither a zip nor a tar"):
        bring(broken, folder_of(home, broken), ignore)
    with pytest.raises(ModelError):
        bring(broken, folder_of(home, broken), ignore)


def test_two_archives_are_one_too_many(
    web: FileServer, manifest: ModelManifest, home: Home
) -> None:
    web.files["/n.zip"] = web.files["/m.zip"]
    two = manifest_of(web, manifest, "m.zip", "n.zip", kind="archive")
    with pytest.raises(ModelError, match="should be one archive"):
        bring(two, folder_of(home, two), ignore)
