"""What a worker says of itself; its refusals are shown with the jobs, in test_tasks."""

import msgspec
import pytest
from PIL import Image

from sdq.broker import DrawTask
from sdq.errors import GenerationFailed
from sdq.protocol.model import ModelFile, ModelManifest
from sdq.spec import ImageSpec
from sdq.worker import identity
from sdq.worker.engine import DrawnImage
from sdq.worker.identity import Identity


def test_the_model_hash_is_that_of_the_largest_weights(manifest: ModelManifest) -> None:
    files = (
        ModelFile("config.json", 999, "1" * 64, ()),
        ModelFile("vae/w.safetensors", 10, "2" * 64, ()),
        ModelFile("unet/w.safetensors", 20, "3" * 64, ()),
        ModelFile("text/w.safetensors", None, "4" * 64, ()),
    )
    held = msgspec.structs.replace(manifest, files=files)
    assert Identity("w", held, "cpu", {}).model_hash == "3" * 10


def test_a_file_that_is_too_large_for_the_way_back(
    manifest: ModelManifest, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "MAX_IMAGE_BYTES", 100)
    task = DrawTask("job1", 1, "server1", spec, "a" * 64, manifest.fingerprint)
    drawn = DrawnImage(Image.new("RGB", (64, 48), (1, 2, 3)), 1.0)
    with pytest.raises(GenerationFailed, match="100 are allowed") as caught:
        Identity("w", manifest, "cpu", {}).png(task, drawn)
    assert "smaller picture" in caught.value.hint
