"""The shipped weights: they load, draw, are small, and the catalog can list them."""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sdq_shapes
import torch
from evaluate import Settings, load_pipeline
from evaluation.judge import judge
from manifest import entries
from training.truth import Thing, Truth


def test_the_folder_is_complete_and_small() -> None:
    files = [path for path in sdq_shapes.folder().rglob("*") if path.is_file()]
    assert (sdq_shapes.folder() / "model_index.json").is_file()
    assert sum(path.stat().st_size for path in files) <= 26_000_000
    assert sdq_shapes.__version__ == "0.1.0"


def test_nothing_machine_specific_is_shipped() -> None:
    for path in sdq_shapes.folder().rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert "_name_or_path" not in text
        assert "is_local" not in text


def test_the_package_alone_imports_no_libraries() -> None:
    code = "import sdq_shapes, sys; print(sorted({'torch', 'diffusers', 'PIL'} & set(sys.modules)))"
    folder = Path(sdq_shapes.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_weights_draw_what_is_asked() -> None:
    pipeline = load_pipeline(Settings(sdq_shapes.folder(), 20, 4.0, "ddim"))
    result = pipeline(
        "a red circle on a blue background",
        num_inference_steps=20,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(1),
    )
    verdict = judge(result.images[0], Truth("one", "blue", (Thing("circle", "red"),)))
    assert verdict.background
    assert verdict.colour
    assert verdict.count


@pytest.mark.parametrize("path", ["model_index.json", "unet/diffusion_pytorch_model.safetensors"])
def test_the_manifest_lists_size_and_hash(path: str) -> None:
    files = tomllib.loads("\n".join(entries(sdq_shapes.folder())))["files"]
    assert len(files) == 10
    file = next(file for file in files if file["path"] == path)
    content = (sdq_shapes.folder() / path).read_bytes()
    assert file["size_bytes"] == len(content)
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert file["links"] == [f"builtin:shapes/{path}"]
