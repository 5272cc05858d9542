"""Writing a whole model: as diffusers lays it out, or as one checkpoint."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdq.testing.full_size import names, tokenizer, weights
from sdq.testing.full_size.layouts import REAL_SIZES, Layout, Part, Sizes, parts_of
from sdq.testing.full_size.weights import Dtype, Entry
from sdq.worker.layouts.folder import INDEX, index_of, save_config, scheduler_of, tokenizers_of

_WEIGHT_FILES = {
    "diffusers": "diffusion_pytorch_model.safetensors",
    "transformers": "model.safetensors",
}


@dataclass
class Built:
    """What was written: parameters by part, and bytes of weights."""

    parameters: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0


def build(
    layout: Layout,
    folder: Path,
    dtype: Dtype = "float16",
    *,
    seed: int = 0,
    sizes: Sizes | None = None,
) -> Built:
    """A pipeline in diffusers' own layout in ``folder``, which is made.

    ``sd1`` takes 2.1 GB of disk in halves, ``sdxl`` 6.9; memory as much as the largest tensor
    in float32, 250 MB. ``sizes``: others than the real ones. What makes the folder a model is
    written last: safe to cancel, build again over what is there. Raises `OSError`.
    """
    _silence()
    sizes = sizes or REAL_SIZES[layout]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    built = Built()
    for part in parts_of(layout, sizes):
        module = part.skeleton()
        place = folder / part.name
        save_config(part, place, dtype)
        entries = list(_entries(part, module, seed))
        built.parameters[part.name] = sum(found.numel() for found in module.parameters())
        built.size_bytes += weights.write(place / _WEIGHT_FILES[part.library], entries, dtype)
    for name, pad_token in tokenizers_of(layout).items():
        tokenizer.tokenizer_of(sizes.vocabulary, pad_token).save_pretrained(folder / name)
    scheduler = scheduler_of(layout)
    scheduler.save_pretrained(folder / "scheduler")
    index = index_of(layout, sizes, type(scheduler).__name__)
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return built


def build_single_file(
    layout: Layout,
    file: Path,
    dtype: Dtype = "float16",
    *,
    seed: int = 0,
    sizes: Sizes | None = None,
) -> int:
    """The same model as one checkpoint, under the names that such files have; its bytes.

    It draws what the folder of the same seed draws. Written whole or not at all.
    """
    _silence()
    entries: list[Entry] = []
    for part in parts_of(layout, sizes or REAL_SIZES[layout]):
        entries += names.renamed(layout, part.name, _entries(part, part.skeleton(), seed))
    file.parent.mkdir(parents=True, exist_ok=True)
    return weights.write(file, entries, dtype)


def files_of(folder: Path) -> list[str]:
    """The model's files as a catalog names them, sorted. Raises `FileNotFoundError` when the
    folder holds no whole model."""
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} holds no whole model: build it again")
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".json", ".safetensors")
    )


def _silence() -> None:
    from sdq.worker import pipelines

    pipelines.silence()


def _entries(part: Part, module: Any, seed: int) -> Iterator[Entry]:
    # As the published files name it; today's transformers leaves it out, and reads both.
    prefix = "text_model." if part.class_name == "CLIPTextModel" else ""
    for weight in weights.weights_of(module):
        name = prefix + weight.name.removeprefix("text_model.") if prefix else weight.name

        def make(weight: weights.Weight = weight) -> Any:
            return weight.numbers(part.name, seed)

        yield Entry(name, weight.shape, make)
