"""What the catalog says of a model: paths that stay inside, an identity that does not wander."""

import msgspec
import pytest

from sdq.protocol.model import ModelFile, ModelId, RelativePath, Sha256, fingerprint_of


@pytest.mark.parametrize(
    "path",
    ["model_index.json", "unet/diffusion_pytorch_model.fp16.safetensors", "a/b_c-d/e.txt", "_x/y"],
)
def test_paths_that_models_use(path: str) -> None:
    assert msgspec.convert(path, RelativePath) == path


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "a/", ".hidden", "a/.git/config",
     "a\\b", "C:/x", "a b", "a\n", "a/b\n", "~/x", "x" * 256],
)  # fmt: skip
def test_paths_that_could_leave_the_folder(path: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(path, RelativePath)


@pytest.mark.parametrize("model_id", ["", "..", ".x", "a/b", "a\n", "a b", "-x", "x" * 101])
def test_ids_that_are_no_folder_names(model_id: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(model_id, ModelId)
    assert msgspec.convert("sd-1.5_fp16", ModelId)


@pytest.mark.parametrize("digest", ["a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_hashes_are_64_lower_case_digits(digest: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(digest, Sha256)


def test_the_fingerprint_is_of_paths_and_hashes_only() -> None:
    one = ModelFile("a", 1, "1" * 64, ("https://here/a",))
    two = ModelFile("b", 2, "2" * 64, ("https://here/b",))
    moved = ModelFile("a", None, "1" * 64, ("https://there/a", "https://mirror/a"))
    assert fingerprint_of([one, two]) == fingerprint_of([two, moved])
    assert fingerprint_of([one, two]) != fingerprint_of([one])
    changed = ModelFile("b", 2, "3" * 64, ())
    assert fingerprint_of([one, two]) != fingerprint_of([one, changed])
    assert fingerprint_of([one, two]) == (
        "032ed9970a4d7373131c71442efe59432b1e14a87dfccc8c13ad9d375d76f96c"
    )
