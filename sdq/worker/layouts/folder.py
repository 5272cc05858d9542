"""A folder of configuration in diffusers' own form, without weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdq.worker.layouts.figures import REAL_SIZES, Layout, Part, Sizes, parts_of
from sdq.worker.layouts.vocabulary import END, clip_tokenizer

PIPELINES: Mapping[Layout, str] = {
    "sd1": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
}
INDEX = "model_index.json"


def write_configuration(
    layout: Layout,
    folder: Path,
    *,
    dtype: str = "float16",
    scheduler: Any = None,
    sizes: Sizes | None = None,
) -> None:
    """All that ``from_single_file(…, config=folder)`` asks for. ``scheduler``: another than the
    family's own; ``sizes``: others than the real ones. Some 2 MB of text, one second. Raises
    `OSError`."""
    sizes = sizes or REAL_SIZES[layout]
    for part in parts_of(layout, sizes):
        save_config(part, folder / part.name, dtype)
    for name, pad_token in tokenizers_of(layout).items():
        clip_tokenizer(pad_token).save_pretrained(folder / name)
    chosen = scheduler or scheduler_of(layout)
    chosen.save_pretrained(folder / "scheduler")
    index = index_of(layout, sizes, type(chosen).__name__)
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def save_config(part: Part, place: Path, dtype: str) -> None:
    """``config.json`` of one module."""
    place.mkdir(parents=True, exist_ok=True)
    if part.library == "diffusers":
        config = {"_class_name": part.class_name, **part.figures}
        (place / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        return
    import transformers

    text_config = transformers.CLIPTextConfig(**part.figures)
    text_config.architectures = [part.class_name]
    text_config.dtype = dtype
    text_config.save_pretrained(place)


def tokenizers_of(layout: Layout) -> dict[str, str]:
    """Their folders, and what fills a short prompt up."""
    found = {"tokenizer": END}
    return found | {"tokenizer_2": "!"} if layout == "sdxl" else found


def scheduler_of(layout: Layout) -> Any:
    """The one that the family was published with."""
    import diffusers

    common: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    if layout == "sdxl":
        return diffusers.EulerDiscreteScheduler(**common)
    return diffusers.PNDMScheduler(**common, skip_prk_steps=True, set_alpha_to_one=False)


def turbo_scheduler() -> Any:
    """For models that were distilled to a few steps: they begin at the noisiest timestep."""
    import diffusers

    return diffusers.EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="trailing",
    )


def index_of(layout: Layout, sizes: Sizes, scheduler_class: str) -> dict[str, Any]:
    """``model_index.json``: which class each part is of."""
    import diffusers

    modules: dict[str, tuple[str | None, str | None]] = {
        part.name: (part.library, part.class_name) for part in parts_of(layout, sizes)
    }
    modules |= dict.fromkeys(tokenizers_of(layout), ("transformers", "CLIPTokenizer"))
    modules["scheduler"] = ("diffusers", scheduler_class)
    index: dict[str, Any] = {
        "_class_name": PIPELINES[layout],
        "_diffusers_version": diffusers.__version__,
        **modules,
    }
    if layout == "sdxl":
        return index | {"force_zeros_for_empty_prompt": True}
    absent = {"safety_checker": (None, None), "feature_extractor": (None, None)}
    return index | absent | {"requires_safety_checker": False}
