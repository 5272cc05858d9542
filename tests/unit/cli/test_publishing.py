"""From links to an entry of the catalog."""

import json
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq.cli.publishing import Files, Wishes, golden_of, look_at, manifest_of
from sdq.errors import DownloadError, ModelError, UsageError
from sdq.protocol.model import ModelFile
from sdq.server.catalog import Catalog
from sdq.testing.file_server import Fault, FileServer
from sdq.worker import golden

COMMIT = "c" * 40


def checkpoint(*marks: str) -> bytes:
    names = ("model.diffusion_model.x", *marks)
    header = json.dumps(
        {name: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for name in names}
    )
    return struct.pack("<Q", len(header)) + header.encode() + bytes(1000)


SD1 = checkpoint("cond_stage_model.transformer.x")


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer(files={"/m.safetensors": SD1, "/m.zip": b"packed"}) as server:
        yield server


def test_one_file_with_a_mirror(web: FileServer) -> None:
    links = [f"{web.url}/m.safetensors", "https://example.org/other.safetensors"]
    told: list[tuple[str, int]] = []
    found = look_at(links, report=lambda file, done: told.append((file, done)))
    digest = sha256(SD1).hexdigest()
    assert found == Files(
        "single_file", (ModelFile("m.safetensors", len(SD1), digest, tuple(links)),), "sd15"
    )
    assert told[-1] == ("m.safetensors", len(SD1))


def test_a_mirror_that_is_away_does_not_matter(web: FileServer) -> None:
    links = [f"{web.url}/gone.safetensors", f"{web.url}/m.safetensors"]
    (file,) = look_at(links).files
    assert (file.path, file.size_bytes) == ("gone.safetensors", len(SD1))


@pytest.mark.parametrize(
    ("told", "words"),
    [({"sha256": "ab" * 32}, "not the one that is given"), ({"size_bytes": 5}, "bytes, not 5")],
)
def test_a_file_that_is_another_one_than_was_told_is_refused(
    web: FileServer, told: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        look_at([f"{web.url}/m.safetensors"], **told)


def test_a_hash_alone_does_not_do_for_a_size(web: FileServer) -> None:
    digest = sha256(SD1).hexdigest()
    (file,) = look_at([f"{web.url}/m.safetensors"], sha256=digest.upper()).files
    assert (file.size_bytes, file.sha256) == (len(SD1), digest)


def test_what_is_known_is_not_computed(web: FileServer) -> None:
    found = look_at([f"{web.url}/m.safetensors"], sha256="AB" * 32, size_bytes=5)
    assert found.files[0].sha256 == "ab" * 32
    assert found.files[0].size_bytes == 5
    assert not web.requests


def test_an_archive(web: FileServer) -> None:
    found = look_at([f"{web.url}/m.zip"])
    assert (found.kind, found.files[0].path, found.like) == ("archive", "m.zip", "")


def test_a_link_without_a_name_wants_one(web: FileServer) -> None:
    web.files["/download"] = SD1
    with pytest.raises(UsageError, match="what kind of file") as refused:
        look_at([f"{web.url}/download?id=1"])
    assert "--name" in refused.value.hint
    found = look_at([f"{web.url}/download?id=1"], name="mine.safetensors")
    assert found.files[0].path == "mine.safetensors"


def test_a_folder_file_by_file(web: FileServer) -> None:
    web.files["/index"] = b'{"_class_name": "StableDiffusionXLPipeline"}'
    found = look_at(
        [
            f"model_index.json={web.url}/index",
            f"unet/w.safetensors={web.url}/m.safetensors?a=b",
            "unet/w.safetensors=https://example.org/mirror",
        ]
    )
    assert (found.kind, found.like) == ("folder", "sdxl")
    assert [(file.path, len(file.links)) for file in found.files] == [
        ("model_index.json", 1),
        ("unet/w.safetensors", 2),
    ]


def test_a_whole_repository(web: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    index = json.dumps(
        {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet"]}
    ).encode()
    entries = [
        {"type": "file", "path": "model_index.json", "size": len(index)},
        {"type": "file", "path": "unet/config.json", "size": 2},
        {
            "type": "file",
            "path": "unet/w.safetensors",
            "size": 9,
            "lfs": {"oid": "a" * 64, "size": 9},
        },
        {"type": "file", "path": "README.md", "size": 5},
    ]
    web.files["/api/models/org/name/revision/v1"] = json.dumps({"sha": COMMIT}).encode()
    web.files[f"/api/models/org/name/tree/{COMMIT}"] = json.dumps(entries).encode()
    web.files[f"/org/name/resolve/{COMMIT}/model_index.json"] = index
    web.files[f"/org/name/resolve/{COMMIT}/unet/config.json"] = b"{}"
    found = look_at(["hf://org/name@v1"])
    assert (found.kind, found.like) == ("folder", "sd15")
    assert [(file.path, file.size_bytes, file.sha256[:4]) for file in found.files] == [
        ("model_index.json", len(index), sha256(index).hexdigest()[:4]),
        ("unet/config.json", 2, sha256(b"{}").hexdigest()[:4]),
        ("unet/w.safetensors", 9, "aaaa"),
    ]
    assert found.files[2].links == (f"hf://org/name@{COMMIT}/unet/w.safetensors",)
    assert not any("w.safetensors" in request.path for request in web.requests)


def test_a_repository_of_checkpoints_says_so(
    web: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    web.files["/api/models/org/name/revision/main"] = json.dumps({"sha": COMMIT}).encode()
    web.files[f"/api/models/org/name/tree/{COMMIT}"] = b"[]"
    with pytest.raises(UsageError, match="no pipeline of diffusers") as refused:
        look_at(["hf://org/name"])
    assert "file.safetensors" in refused.value.hint


@pytest.mark.parametrize("name", ["m.ckpt", "pytorch_model.bin"])
def test_pickles_are_refused_before_they_are_read(web: FileServer, name: str) -> None:
    with pytest.raises(ModelError, match="pickle"):
        look_at([f"{web.url}/{name}"])
    with pytest.raises(ModelError, match="pickle"):
        look_at([f"unet/{name}={web.url}/{name}"])
    assert not web.requests


def test_what_is_no_checkpoint_is_refused(web: FileServer) -> None:
    web.files["/page.safetensors"] = b"<html>an error page</html>"
    with pytest.raises(ModelError, match="no safetensors file"):
        look_at([f"{web.url}/page.safetensors"])
    web.files["/lora.safetensors"] = checkpoint()
    with pytest.raises(ModelError, match="unknown family"):
        look_at([f"{web.url}/lora.safetensors"])


def test_nothing_is_published_without_its_hash(web: FileServer) -> None:
    web.always["/m.safetensors"] = Fault(status=403)
    with pytest.raises(DownloadError, match="403 Forbidden") as refused:
        look_at([f"{web.url}/m.safetensors"])
    assert "without hash and size" in refused.value.hint


def test_what_is_left_open_is_as_in_the_model_that_it_is_like(tmp_path: Path) -> None:
    like = Catalog.load().manifest("sd15")
    file = ModelFile("m.safetensors", 1, "0" * 64, ("https://example.org/m.safetensors",))
    made = manifest_of("mine", Files("single_file", (file,)), like, Wishes(steps=8, license="MIT"))
    assert (made.defaults.num_inference_steps, made.license, made.title) == (8, "MIT", "mine")
    assert made.defaults.width == like.defaults.width
    assert made.limits == like.limits
    assert made.fingerprint != like.fingerprint


@pytest.mark.parametrize(
    "wishes", [Wishes(steps=9999), Wishes(width=0), Wishes(guidance=float("nan"))]
)
def test_what_no_model_can_have_is_told_in_words(wishes: Wishes) -> None:
    file = ModelFile("m.safetensors", 1, "0" * 64, ("https://example.org/m.safetensors",))
    like = Catalog.load().manifest("sd15")
    with pytest.raises(UsageError, match=r"^defaults\.\w+: expected") as refused:
        manifest_of("mine", Files("single_file", (file,)), like, wishes)
    assert "--help" in refused.value.hint


@pytest.mark.parametrize(
    ("links", "name", "hint"),
    [
        (["{}/my%20model.safetensors"], "", "--name"),
        (["{}/m.safetensors"], "../m.safetensors", "--name"),
        (["../m.safetensors={}/m.safetensors"], "", "letters"),
        (["m.safetensors={}/m.safetensors", "{}/m.safetensors"], "", "PATH=LINK"),
        (["m.safetensors={}/m.safetensors"], "m.safetensors", "leave them away"),
        (["hf://org/name"], "m.safetensors", "leave them away"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_read(
    web: FileServer, links: list[str], name: str, hint: str
) -> None:
    web.files["/my%20model.safetensors"] = web.files["/my model.safetensors"] = SD1
    with pytest.raises(UsageError) as refused:
        look_at([link.format(web.url) for link in links], name=name)
    assert hint in refused.value.hint
    assert not web.requests


def test_a_golden_picture_is_made_small_and_never_taken_from_another_model(tmp_path: Path) -> None:
    shapes = Catalog.load().manifest("shapes")
    found = Files("single_file", shapes.files[:1])
    assert shapes.golden
    assert manifest_of("mine", found, shapes, Wishes()).golden == ""
    picture = Image.radial_gradient("L").resize((512, 384)).convert("RGB")
    picture.save(tmp_path / "golden.png")
    text = golden_of(tmp_path / "golden.png")
    made = manifest_of("mine", found, shapes, Wishes(golden=text))
    assert golden.fault_of(picture, made.golden) == ""
    assert golden.fault_of(Image.new("RGB", (512, 384)), made.golden)


@pytest.mark.parametrize("data", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_golden_picture_that_is_none(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "golden.png").write_bytes(data)
    with pytest.raises(UsageError, match="--golden: cannot read") as refused:
        golden_of(tmp_path / "golden.png")
    assert "PNG" in refused.value.hint
