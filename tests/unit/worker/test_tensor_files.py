"""What safetensors files say they hold."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdq.errors import ModelError
from sdq.worker import tensor_files
from sdq.worker.tensor_files import notes_in, read_head, shapes_in, shapes_of


def test_what_the_format_s_own_writer_has_written(tmp_path: Path) -> None:
    weights = {"a.weight": torch.zeros(2, 3, 4), "b": torch.zeros(7), "one": torch.tensor(1.0)}
    path = tmp_path / "w.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    shapes = {"a.weight": (2, 3, 4), "b": (7,), "one": ()}
    assert shapes_of(path) == shapes
    assert shapes_in("w", path.read_bytes()) == shapes
    assert notes_in("w", read_head(path)) == {"format": "pt"}


def test_a_file_without_notes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    assert notes_in("w", read_head(path)) == {}


@pytest.mark.parametrize("notes", [5, {"a": 5}, ["a"]])
def test_notes_that_are_no_texts(notes: object) -> None:
    header = json.dumps({"__metadata__": notes}).encode()
    with pytest.raises(ModelError, match="w is no safetensors file"):
        notes_in("w", struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"\xff" * 20,
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 10) + b"not json!!",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": 1}}',
        struct.pack("<Q", 60_000) + b"[" * 60_000,
        struct.pack("<Q", 2) + b"\xff\xfe",
        struct.pack("<Q", 100) + b"{}",
    ],
)
def test_broken_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"a\.safetensors is no safetensors file") as caught:
        shapes_of(path)
    assert "sdq worker install" in caught.value.hint


def test_a_header_over_the_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = json.dumps({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert shapes_of(path) == {"a": (1,)}
    monkeypatch.setattr(tensor_files, "MAX_HEADER_BYTES", len(header) - 1)
    with pytest.raises(ModelError):
        shapes_of(path)
