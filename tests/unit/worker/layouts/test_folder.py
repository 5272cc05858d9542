"""The configuration that a checkpoint leaves out, against diffusers' own reader."""

from pathlib import Path
from typing import Any

import pytest

from sdq.testing import full_size
from sdq.testing.full_size.layouts import SMALL_SIZES
from sdq.testing.full_size.tokenizer import tokenizer_of
from sdq.worker import pipelines
from sdq.worker.layouts.figures import LAYOUTS, Layout
from sdq.worker.layouts.folder import (
    PIPELINES,
    tokenizers_of,
    turbo_scheduler,
    write_configuration,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def _nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    pipelines.silence()


def draw(pipeline: Any) -> Any:
    import torch

    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a red circle",
        num_inference_steps=2,
        width=64,
        height=64,
        output_type="np",
        generator=torch.Generator().manual_seed(1),
    ).images


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_draws_what_the_folder_of_the_same_weights_draws(
    layout: Layout, tmp_path: Path
) -> None:
    import diffusers
    import torch

    sizes, options = SMALL_SIZES[layout], {"dtype": torch.float32, "local_files_only": True}
    kind = getattr(diffusers, PIPELINES[layout])
    folder, file, beside = tmp_path / "folder", tmp_path / "one.safetensors", tmp_path / "beside"
    full_size.build(layout, folder, "float32", sizes=sizes)
    full_size.build_single_file(layout, file, "float32", sizes=sizes)
    write_configuration(layout, beside, sizes=sizes)
    for name, pad_token in tokenizers_of(layout).items():  # the small model has few words
        tokenizer_of(sizes.vocabulary, pad_token).save_pretrained(beside / name)
    one = kind.from_single_file(str(file), config=str(beside), **options)
    same = kind.from_pretrained(str(folder), **options)
    assert abs(draw(one) - draw(same)).max() < 1e-4


def test_tokenizer_and_scheduler_can_be_read(tmp_path: Path) -> None:
    import diffusers
    import transformers

    write_configuration("sdxl", tmp_path, scheduler=turbo_scheduler())
    scheduler = diffusers.EulerAncestralDiscreteScheduler.from_pretrained(tmp_path / "scheduler")
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [999.0]
    second = transformers.CLIPTokenizer.from_pretrained(str(tmp_path / "tokenizer_2"))
    filled = second("a", padding="max_length").input_ids
    assert filled[:4] == [49406, 320, 49407, 0]
