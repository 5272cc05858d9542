"""The catalog from the terminal: added, shown, made the default, removed."""

import json
import struct
from pathlib import Path

from sdq.testing.file_server import FileServer


def checkpoint() -> bytes:
    names = ("model.diffusion_model.x", "cond_stage_model.transformer.x")
    header = json.dumps(
        {name: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for name in names}
    ).encode()
    return struct.pack("<Q", len(header)) + header


def test_a_model_from_its_link_to_its_end(sdq, tmp_path: Path):
    sdq.serve()
    with FileServer(files={"/mine.safetensors": checkpoint()}) as web:
        link = f"{web.url}/mine.safetensors"
        added = sdq("model", "add", "mine", link, "--license", "MIT", "--steps", "7")
        assert added.returncode == 0, added.stderr
        assert "mine is in the catalog" in added.stderr
        assert "sdq worker install --model mine" in added.stderr
        again = sdq("model", "add", "mine", link)
        assert (again.returncode, "'mine' already" in again.stderr) == (2, True)

        assert sdq("model", "default", "mine").returncode == 0
        shown = json.loads(sdq("model", "show", "--json").stdout)
        assert shown["is_default"]
        assert shown["manifest"]["defaults"]["num_inference_steps"] == 7
        assert shown["manifest"]["files"][0]["links"] == [link]
        said = sdq("model", "show", "mine").stdout
        assert link in said
        assert "licence      MIT" in said
        asked = sdq("generate", "a cat", "--no-wait", "-o", "x.png")
        assert (asked.returncode, "no worker online holds 'mine'" in asked.stderr) == (6, True)

        removed = sdq("model", "remove", "mine")
        assert (removed.returncode, removed.stderr) == (
            0,
            "mine is removed\nthe default was mine, it is shapes now\n",
        )
        listed = sdq("model", "list").stdout
        assert "shapes (default)" in listed
        assert "mine" not in listed


def test_mistakes_are_told_with_what_to_do(sdq):
    sdq.serve()
    for arguments, code, words in (
        (("remove", "shapes"), 2, "comes with sdq"),
        (("remove", "shape"), 2, "did you mean 'shapes'"),
        (("default", "nothing"), 2, "known are"),
        (("add", "mine", "https://example.org/x.ckpt"), 1, "safetensors"),
        (("add", "mine", "ftp://example.org/x.safetensors"), 1, "hash and size"),
        (("add", "mine", "file:///nowhere.safetensors"), 1, "cannot read"),
        (("add", "a/b", "file:///x.safetensors", "--sha256", "a" * 64, "--like", "sd15"), 2, "id"),
        (
            ("add", "mine", "file:///x.safetensors", "--sha256", "xyz", "--like", "sd15"),
            2,
            "sha256",
        ),
    ):
        done = sdq("model", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def lora() -> bytes:
    header = json.dumps(
        {"unet.x.lora_A.weight": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header


def test_a_lora_from_its_link_to_its_end(sdq):
    sdq.serve()
    assert "glow" not in sdq("model", "loras").stdout
    assert "glow" not in sdq("model", "show", "shapes").stdout
    with FileServer(files={"/glow.safetensors": lora()}) as web:
        link = f"{web.url}/glow.safetensors"
        add = ("model", "add-lora", "glow", link, "--model", "shapes", "--weight", "0.8")
        added = sdq(*add, "--trigger", "glow light")
        assert added.returncode == 0, added.stderr
        assert "glow is in the catalog" in added.stderr
        assert 'sdq generate "glow light" --model shapes --lora glow' in added.stderr
        again = sdq(*add)
        assert (again.returncode, "'glow' already" in again.stderr) == (2, True)
        assert sdq(*add, "--replace").returncode == 0
    entries = map(json.loads, sdq("model", "loras", "--json").stdout.splitlines())
    entry = next(found for found in entries if found["lora_id"] == "glow")
    assert (entry["models"], entry["weight"]) == (["shapes"], 0.8)
    assert entry["file"]["links"] == [link]
    assert "glow" in sdq("model", "loras", "--model", "shapes").stdout
    assert "loras        glow" in sdq("model", "show", "shapes").stdout
    for flags, code, words in (
        (("--lora", "glov"), 2, "did you mean 'glow'"),
        (("--lora", "glow:much"), 2, "'much' is no weight"),
        (("--lora", "glow", "--model", "sdxl"), 2, "is for shapes, not for sdxl"),
        (("--lora", "glow:0.5", "--no-wait"), 6, "no worker online"),
    ):
        asked = sdq("generate", "a cat", "-o", "x.png", *flags)
        assert (asked.returncode, words in asked.stderr) == (code, True), asked.stderr
    removed = sdq("model", "remove-lora", "glow")
    assert (removed.returncode, removed.stderr) == (0, "glow is removed\n")
    assert sdq("model", "remove-lora", "glow").returncode == 2
