"""Prompts are encoded once, in bounded memory, as the pipelines encode them."""

from functools import cache
from typing import Any

import msgspec
import pytest
import torch

from sdq.spec import ImageSpec, Lora
from sdq.testing.tiny_models import Layout, tiny_pipeline
from sdq.worker.conditioning import Conditioner


@cache
def pipeline_of(layout: Layout) -> Any:
    return tiny_pipeline(layout)


class Counted:
    """Counts the texts that a pipeline encodes."""

    def __init__(self, pipeline: Any) -> None:
        self.texts: list[str] = []
        self._pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def encode_prompt(self, prompt: str, **options: Any) -> Any:
        self.texts.append(prompt)
        return self._pipeline.encode_prompt(prompt=prompt, **options)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
@pytest.mark.parametrize("negative", ["", "ugly, blue"])
def test_as_the_pipeline_does_for_both_at_once(
    spec: ImageSpec, layout: Layout, negative: str
) -> None:
    pipeline = pipeline_of(layout)
    spec = msgspec.structs.replace(spec, negative_prompt=negative)
    made = Conditioner(pipeline).condition(spec)
    right = pipeline.encode_prompt(
        prompt=spec.prompt,
        device=torch.device("cpu"),
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=negative or None,
    )
    assert made.negative is not None
    ours = [made.positive.tokens, made.negative.tokens]
    ours += [text.pooled for text in (made.positive, made.negative) if text.pooled is not None]
    assert all(torch.equal(one, other) for one, other in zip(ours, right, strict=True))


def test_the_empty_negative_prompt_of_sdxl_is_zero_where_the_model_says_so(spec: ImageSpec) -> None:
    pipeline = pipeline_of("sdxl")
    assert pipeline.config.force_zeros_for_empty_prompt
    negative = Conditioner(pipeline).condition(spec).negative
    assert negative is not None
    assert negative.pooled is not None
    assert not negative.tokens.any()
    assert not negative.pooled.any()


def test_sizes_are_height_first(spec: ImageSpec) -> None:
    made = Conditioner(pipeline_of("sdxl")).condition(spec)
    assert made.time_ids is not None
    assert made.time_ids.tolist() == [[48, 64, 0, 0, 48, 64]]
    assert Conditioner(pipeline_of("sd1")).condition(spec).time_ids is None


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0])
def test_without_guidance_there_is_no_negative(spec: ImageSpec, guidance: float) -> None:
    counted = Counted(pipeline_of("turbo"))
    spec = msgspec.structs.replace(spec, guidance_scale=guidance, negative_prompt="ugly")
    assert Conditioner(counted).condition(spec).negative is None
    assert counted.texts == ["a cat"]


def test_a_text_is_encoded_once(spec: ImageSpec) -> None:
    counted = Counted(pipeline_of("sd1"))
    conditioner = Conditioner(counted)
    first = conditioner.condition(spec)
    dog = msgspec.structs.replace(spec, prompt="a dog", negative_prompt="a cat")
    second = conditioner.condition(dog)
    assert counted.texts == ["a cat", "", "a dog"]
    assert second.negative is first.positive


def test_a_text_is_encoded_once_with_each_set_of_loras(spec: ImageSpec) -> None:
    counted = Counted(pipeline_of("sd1"))
    conditioner = Conditioner(counted)
    with_one = msgspec.structs.replace(spec, loras=(Lora("x", "a" * 64, 0.5),))
    renamed = msgspec.structs.replace(spec, loras=(Lora("y", "a" * 64, 0.5),))
    weaker = msgspec.structs.replace(spec, loras=(Lora("x", "a" * 64, 0.4),))
    for each in (spec, with_one, renamed, spec, weaker):
        conditioner.condition(each)
    assert counted.texts == ["a cat", ""] * 3


def test_what_is_remembered_is_bounded(spec: ImageSpec) -> None:
    counted = Counted(pipeline_of("sdxl"))
    one_bytes = Conditioner(counted).condition(spec).positive.size_bytes
    counted.texts.clear()
    conditioner = Conditioner(counted, max_cache_bytes=2 * one_bytes)
    for prompt in ("a", "b", "a", "c", "a", "b"):  # b was used least recently when c came
        conditioner.condition(msgspec.structs.replace(spec, prompt=prompt, guidance_scale=1.0))
        assert conditioner.cache_bytes <= 2 * one_bytes
    assert counted.texts == ["a", "b", "c", "b"]
    tiny = Conditioner(counted, max_cache_bytes=1)
    assert tiny.condition(spec).positive.tokens.any()
    assert tiny.cache_bytes == 0
