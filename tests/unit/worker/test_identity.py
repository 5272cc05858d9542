"""What a worker says of itself; its refusals are shown with the jobs, in test_tasks."""

import msgspec
import pytest
from PIL import Image

from sdq import metadata
from sdq.broker import DrawTask
from sdq.errors import GenerationFailed, InvalidSpec
from sdq.protocol.model import ModelFile, ModelManifest
from sdq.spec import ImageSpec
from sdq.worker import identity
from sdq.worker.identity import Identity, model_hash
from sdq.worker.picture import DrawnImage, GivenBack


def test_the_model_hash_is_that_of_the_largest_weights(manifest: ModelManifest) -> None:
    files = (
        ModelFile("config.json", 999, "1" * 64, ()),
        ModelFile("vae/w.safetensors", 10, "2" * 64, ()),
        ModelFile("unet/w.safetensors", 20, "3" * 64, ()),
        ModelFile("text/w.safetensors", None, "4" * 64, ()),
    )
    held = msgspec.structs.replace(manifest, files=files)
    assert model_hash(held) == "3" * 10


def test_each_picture_is_of_its_own_model(manifest: ModelManifest, spec: ImageSpec) -> None:
    files = (ModelFile("other.safetensors", 5, "5" * 64, ()),)
    limits = msgspec.structs.replace(manifest.limits, max_steps=3)
    other = msgspec.structs.replace(
        manifest, model_id="other", files=files, limits=limits, fingerprint="e" * 64
    )
    held = Identity("w", (manifest, other), "cpu", {})

    def task(model_id: str, fingerprint: str) -> DrawTask:
        asked = msgspec.structs.replace(spec, model=model_id)
        return DrawTask("job1", 1, "server1", asked, "a" * 64, fingerprint)

    held.check(task("shapes", manifest.fingerprint))
    with pytest.raises(InvalidSpec, match="other takes at most 3 steps"):
        held.check(task("other", other.fingerprint))
    with pytest.raises(GivenBack, match="other files"):
        held.check(task("other", manifest.fingerprint))
    with pytest.raises(GivenBack, match="does not hold the model 'third'"):
        held.check(task("third", manifest.fingerprint))
    drawn = DrawnImage(Image.new("RGB", (64, 48), (1, 2, 3)), 1.0)
    data = held.png(task("other", other.fingerprint), drawn)
    provenance = metadata.read(data)
    assert provenance is not None
    assert provenance.model_hash == "5" * 10


def test_a_file_that_is_too_large_for_the_way_back(
    manifest: ModelManifest, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "MAX_IMAGE_BYTES", 100)
    task = DrawTask("job1", 1, "server1", spec, "a" * 64, manifest.fingerprint)
    drawn = DrawnImage(Image.new("RGB", (64, 48), (1, 2, 3)), 1.0)
    with pytest.raises(GenerationFailed, match="100 are allowed") as caught:
        Identity("w", (manifest,), "cpu", {}).png(task, drawn)
    assert "smaller picture" in caught.value.hint
