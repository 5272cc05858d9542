"""The models in their real size: as many weights as published, and both forms the same model.

What is written is tried in a small size of the same form; the real one takes gigabytes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sdq.server.catalog_file import parse
from sdq.testing import full_size
from sdq.testing.full_size import Layout, weights
from sdq.testing.full_size.layouts import REAL_SIZES, SMALL_SIZES, parts_of
from sdq.testing.full_size.tokenizer import tokenizer_of
from sdq.worker import pipelines
from sdq.worker.devices import choose

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", params=full_size.LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(layout)
    full_size.build(layout, folder, "float32", sizes=SMALL_SIZES[layout])
    return folder


def pipeline_of(folder: Path, layout: Layout) -> Any:
    text = full_size.catalog_text("big", layout, folder, full_size.files_of(folder), side=64)
    manifest = parse(text, "here").manifests["big"]
    return pipelines.load(folder, manifest, choose("cpu"))


@pytest.fixture(scope="module")
def pipeline(folder: Path, layout: Layout) -> Any:
    return pipeline_of(folder, layout)


def test_each_part_has_as_many_parameters_as_were_published(layout: Layout) -> None:
    found = {
        part.name: sum(weights.numel() for weights in part.skeleton().parameters())
        for part in parts_of(layout, REAL_SIZES[layout])
    }
    assert found == full_size.PUBLISHED_PARAMETERS[layout]


def test_a_folder_loads_as_a_worker_loads_it_and_draws_a_picture(pipeline: Any) -> None:
    images = pipeline(
        "a red circle", num_inference_steps=2, width=64, height=64, output_type="np"
    ).images
    assert images.shape == (1, 64, 64, 3)
    assert images.std() > 0.05  # neither black, nor flat, nor NaN


def test_the_prompt_changes_the_picture(pipeline: Any) -> None:
    made = [
        pipeline(
            prompt,
            num_inference_steps=2,
            width=64,
            height=64,
            output_type="np",
            generator=torch.Generator().manual_seed(1),
        ).images
        for prompt in ("a red circle", "a blue square")
    ]
    assert abs(made[0] - made[1]).max() > 1e-4


def test_the_same_seed_has_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    built = []
    for number, seed in enumerate((0, 0, 1)):
        file = tmp_path / f"{number}.safetensors"
        full_size.build_single_file("sd1", file, sizes=SMALL_SIZES["sd1"], seed=seed)
        built.append(file.read_bytes())
    assert built[0] == built[1] != built[2]


def test_a_single_file_is_the_same_model_by_diffusers_own_conversion(
    folder: Path, layout: Layout, pipeline: Any, tmp_path: Path
) -> None:
    from diffusers.loaders import single_file_utils as diffusers_names

    file = tmp_path / "one.safetensors"
    size_bytes = full_size.build_single_file(layout, file, "float32", sizes=SMALL_SIZES[layout])
    assert file.stat().st_size == size_bytes
    checkpoint = load_file(file)
    kind = diffusers_names.infer_diffusers_model_type(checkpoint)
    assert kind == ("xl_base" if layout == "sdxl" else "v1")
    unet, vae = pipeline.unet, pipeline.vae
    assert_same(
        diffusers_names.convert_ldm_unet_checkpoint(dict(checkpoint), config=dict(unet.config)),
        unet,
    )
    assert_same(
        diffusers_names.convert_ldm_vae_checkpoint(dict(checkpoint), config=dict(vae.config)), vae
    )
    assert_same(
        diffusers_names.convert_ldm_clip_checkpoint(dict(checkpoint)), pipeline.text_encoder
    )
    if layout == "sdxl":
        big = diffusers_names.convert_open_clip_checkpoint(
            pipeline.text_encoder_2, dict(checkpoint), prefix="conditioner.embedders.1.model."
        )
        assert_same(big, pipeline.text_encoder_2)


def assert_same(converted: dict[str, torch.Tensor], module: Any) -> None:
    ours, theirs = (
        {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
        for state in (converted, module.state_dict())
    )
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_weights_are_stored_in_the_wanted_numbers(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for dtype in ("float16", "bfloat16", "float32"):
        whole = full_size.build_single_file("sd1", file, dtype, sizes=SMALL_SIZES["sd1"])
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            tensors = [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118
        assert {str(tensor.dtype) for tensor in tensors} == {f"torch.{dtype}"}
        assert all(tensor.isfinite().all() for tensor in tensors)
        assert whole > sum(tensor.nbytes for tensor in tensors)


def test_a_write_that_ends_early_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Any:
        raise OSError("no space left on device")

    file = tmp_path / "x.safetensors"
    with pytest.raises(OSError, match="no space"):
        weights.write(file, [weights.Entry("one", (2, 2), broken)], "float16")
    assert not file.exists()


def test_a_folder_that_is_not_whole_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build it again"):
        full_size.files_of(tmp_path)


def test_every_number_of_the_vocabulary_is_a_word_and_prompts_use_them() -> None:
    tokenizer = tokenizer_of(49408)
    assert sorted(tokenizer.get_vocab().values()) == list(range(49408))
    numbers = tokenizer("a photograph of an astronaut", padding="max_length").input_ids
    assert len(numbers) == 77
    assert numbers[0] == 49406
    assert numbers[-1] == 49407
    assert len(set(numbers)) > 8


def test_a_catalog_entry_names_every_file_with_its_hash_where_it_lies(
    folder: Path, layout: Layout
) -> None:
    files = full_size.files_of(folder)
    text = full_size.catalog_text("big", layout, folder, files, steps=2)
    manifest = parse(text, "here").manifests["big"]
    assert [file.path for file in manifest.files] == files
    assert manifest.files[0].links == ((folder / files[0]).as_uri(),)
    assert manifest.defaults.num_inference_steps == 2
    assert manifest.defaults.width == (1024 if layout == "sdxl" else 512)
    elsewhere = full_size.catalog_text("big", layout, folder, files, link="http://127.0.0.1:1/x/")
    served = parse(elsewhere, "here").manifests["big"]
    assert served.files[0].links == (f"http://127.0.0.1:1/x/{files[0]}",)
    assert served.fingerprint == manifest.fingerprint
