"""From links to the entry of a LoRA."""

import json
import struct
from collections.abc import Iterator
from hashlib import sha256

import pytest

from sdq.cli.publishing_lora import LoraWishes, lora_file, lora_manifest_of
from sdq.errors import DownloadError, ModelError, UsageError
from sdq.protocol.model import ModelFile
from sdq.testing.file_server import FileServer


def weights(*names: str) -> bytes:
    header = json.dumps(
        {name: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for name in names}
    )
    return struct.pack("<Q", len(header)) + header.encode() + bytes(100)


LORA = weights("unet.mid_block.attentions.0.to_k.lora_A.weight")
KOHYA = weights("lora_unet_mid_block_attentions_0_to_k.lora_down.weight")
DIGEST = sha256(LORA).hexdigest()


@pytest.fixture
def web() -> Iterator[FileServer]:
    files = {
        "/neon.safetensors": LORA,
        "/kohya.safetensors": KOHYA,
        "/model.safetensors": weights("model.diffusion_model.x"),
        "/page.safetensors": b"<html>log in</html>",
        "/download": LORA,
        "/neon%20(1).safetensors": LORA,
    }
    with FileServer(files=files) as server:
        yield server


def test_a_file_and_its_mirror_are_measured(web: FileServer) -> None:
    links = (f"{web.url}/gone.safetensors", f"{web.url}/neon.safetensors")
    told: list[tuple[str, int]] = []
    file = lora_file("neon", links, report=lambda name, done: told.append((name, done)))
    assert file == ModelFile("gone.safetensors", len(LORA), DIGEST, links)
    assert told[-1] == ("gone.safetensors", len(LORA))
    assert lora_file("k", [f"{web.url}/kohya.safetensors"]).size_bytes == len(KOHYA)


def test_a_link_without_a_fit_name_gets_that_of_the_lora(web: FileServer) -> None:
    for path in ("/download?id=1", "/neon%20(1).safetensors"):
        assert lora_file("neon", [web.url + path]).path == "neon.safetensors"


def test_size_and_hash_together_save_the_reading(web: FileServer) -> None:
    links = [f"{web.url}/neon.safetensors"]
    file = lora_file("neon", links, sha256="AB" * 32, size_bytes=5)
    assert file == ModelFile("neon.safetensors", 5, "ab" * 32, tuple(links))
    assert not web.requests


def test_one_of_them_is_compared_with_what_is_there(web: FileServer) -> None:
    links = [f"{web.url}/neon.safetensors"]
    assert lora_file("neon", links, sha256=DIGEST).size_bytes == len(LORA)
    assert lora_file("neon", links, size_bytes=len(LORA)).sha256 == DIGEST
    with pytest.raises(ModelError, match=f"has the sha256 {DIGEST}"):
        lora_file("neon", links, sha256="ab" * 32)
    with pytest.raises(ModelError, match=f"has {len(LORA)} bytes, not 5"):
        lora_file("neon", links, size_bytes=5)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/model.safetensors", "holds no LoRA: none of its 1 tensors"),
        ("/page.safetensors", "is no safetensors file"),
        ("/neon.pt", r"neon\.pt is refused"),
    ],
)
def test_what_is_no_lora_is_refused_before_anybody_asks_for_it(
    web: FileServer, path: str, words: str
) -> None:
    with pytest.raises(ModelError, match=words) as refused:
        lora_file("neon", [web.url + path])
    assert refused.value.hint


def test_a_link_that_gives_nothing(web: FileServer) -> None:
    with pytest.raises(DownloadError, match=r"cannot read gone\.safetensors"):
        lora_file("neon", [f"{web.url}/gone.safetensors"])


def test_the_entry() -> None:
    file = ModelFile("neon.safetensors", 5, "ab" * 32, ("file:///neon",))
    plain = lora_manifest_of("neon", file, LoraWishes(["shapes", "sd15", "shapes"]))
    assert (plain.title, plain.models, plain.weight) == ("neon", ("shapes", "sd15"), 1.0)
    assert "ask" in plain.license
    said = LoraWishes(["shapes"], title="T", license="L", weight=0.0, trigger="w")
    full = lora_manifest_of("neon", file, said)
    assert (full.title, full.license, full.weight, full.trigger) == ("T", "L", 0.0, "w")
    with pytest.raises(UsageError, match="weight: expected `float` <= 10"):
        lora_manifest_of("neon", file, LoraWishes(["shapes"], weight=11))
