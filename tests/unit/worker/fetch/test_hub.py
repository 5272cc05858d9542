"""Which files of a repository make up a pipeline."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from sdq.errors import ModelError
from sdq.testing.file_server import FileServer
from sdq.worker.fetch import hub
from sdq.worker.fetch.faults import Unreachable
from sdq.worker.fetch.hub import HubFile, pipeline_files, repository

INDEX = json.dumps(
    {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
).encode()
COMMIT = "c" * 40


def files(*paths: str) -> list[HubFile]:
    return [HubFile(path, 1, "") for path in paths]


def chosen(*paths: str) -> Sequence[str]:
    return [file.path for file in pipeline_files(files(*paths), INDEX)]


def test_the_parts_that_the_index_names() -> None:
    wanted = ("model_index.json", "tokenizer/vocab.json", "unet/config.json", "unet/w.safetensors")
    others = (
        "README.md",
        "v1-5-pruned.safetensors",
        "unet/w.bin",
        "unet/flax_model.msgpack",
        "safety_checker/model.safetensors",
        "onnx/unet/config.json",
    )
    assert chosen(*wanted, *others, "tokenizer/merges.txt") == sorted(
        [*wanted, "tokenizer/merges.txt"]
    )


def test_halves_where_there_are_halves_for_all() -> None:
    both = ("unet/w.safetensors", "unet/w.fp16.safetensors", "vae/w.safetensors")
    assert chosen(*both) == ["unet/w.safetensors", "vae/w.safetensors"]
    assert chosen(*both, "vae/w.fp16.safetensors") == [
        "unet/w.fp16.safetensors",
        "vae/w.fp16.safetensors",
    ]
    assert chosen("unet/w.non_ema.safetensors", "unet/w.safetensors") == ["unet/w.safetensors"]


def test_weights_in_several_files_come_with_their_list() -> None:
    split = ("unet/w-00001-of-00002.safetensors", "unet/w-00002-of-00002.safetensors")
    assert chosen(*split, "unet/w.safetensors.index.json") == [
        *split,
        "unet/w.safetensors.index.json",
    ]
    assert chosen("unet/w.safetensors", "unet/w.bin.index.json") == ["unet/w.safetensors"]


def test_pickled_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="'unet' are pickled"):
        chosen("unet/diffusion_pytorch_model.bin", "vae/w.safetensors")


def test_a_broken_index() -> None:
    for index in (b"{", b'{"unet": "\xff"}'):
        with pytest.raises(ModelError, match=r"model_index\.json is broken"):
            pipeline_files([], index)


def serve(web: FileServer, entries: list[dict[str, Any]]) -> dict[str, str]:
    web.files["/api/models/org/name/revision/main"] = json.dumps({"sha": COMMIT}).encode()
    web.files[f"/api/models/org/name/tree/{COMMIT}"] = json.dumps(entries).encode()
    return {"HF_ENDPOINT": web.url, "HF_TOKEN": "secret"}


def test_the_hub_is_asked_for_commit_and_files(web: FileServer) -> None:
    large = {"oid": "a" * 64, "size": 1000, "pointerSize": 130}
    environ = serve(
        web,
        [
            {"type": "directory", "path": "unet", "size": 0},
            {"type": "file", "path": "unet/w.safetensors", "size": 1000, "lfs": large},
            {"type": "file", "path": "model_index.json", "size": 50, "oid": "b" * 40},
        ],
    )
    found = repository("hf://org/name", environ)
    assert found.commit == COMMIT
    assert found.files == (
        HubFile("unet/w.safetensors", 1000, "a" * 64),
        HubFile("model_index.json", 50, ""),
    )
    assert found.link_of("model_index.json") == f"hf://org/name@{COMMIT}/model_index.json"
    assert {request.headers["authorization"] for request in web.requests} == {"Bearer secret"}


def test_a_repository_that_is_not_there(web: FileServer) -> None:
    with pytest.raises(Unreachable, match="404 Not Found"):
        repository("hf://org/nothing", {"HF_ENDPOINT": web.url})


def test_an_answer_that_makes_no_sense(web: FileServer) -> None:
    for answer in (b"<html>", b'{"sha": "\xff"}'):
        web.files["/api/models/org/name/revision/main"] = answer
        with pytest.raises(Unreachable, match="cannot be read"):
            repository("hf://org/name", {"HF_ENDPOINT": web.url})


def test_a_further_page_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(hub._Revision(COMMIT), {}), ([], {"link": '<http://[x>; rel="next"'})]
    monkeypatch.setattr(hub, "_ask", lambda *asked: answers.pop(0))
    with pytest.raises(Unreachable, match="no address"):
        repository("hf://org/name", {})
