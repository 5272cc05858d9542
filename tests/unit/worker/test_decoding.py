"""Latents to pictures: each for itself, in tiles where a whole one does not fit."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from sdq.errors import GenerationFailed
from sdq.testing.tiny_models import tiny_pipeline
from sdq.worker import decoding
from sdq.worker.decoding import Decoder, decode_bytes
from sdq.worker.flight import NoPicture
from sdq.worker.memory import Peak


@pytest.fixture
def pipeline() -> Any:
    return tiny_pipeline("sd1")


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.inference_mode():
        yield


def latents(count: int, height: int = 6, width: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 4, height, width, generator=generator) for _ in range(count)]


def watch(pipeline: Any, fails: int = 0) -> list[tuple[int, int]]:
    """What the VAE is asked: how many, and in tiles of how many pixels a side, 0 for as a whole.
    ``fails``: the device is full."""
    seen: list[tuple[int, int]] = []
    decode = pipeline.vae.decode

    def watched(stacked: torch.Tensor, **options: Any) -> Any:
        side = pipeline.vae.tile_sample_min_size if pipeline.vae.use_tiling else 0
        seen.append((len(stacked), side))
        if len(seen) <= fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(stacked, **options)

    pipeline.vae.decode = watched
    return seen


def test_several_at_once_are_those_of_each_alone(pipeline: Any) -> None:
    seen = watch(pipeline)
    together = Decoder(pipeline).decode(latents(3))
    alone = [Decoder(pipeline).decode([one])[0] for one in latents(3)]
    assert seen == [(3, 0), (1, 0), (1, 0), (1, 0)]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Image.Image)
        assert one.size == (64, 48)
        away = numpy.abs(numpy.asarray(one, int) - numpy.asarray(other, int))
        assert away.max() <= 1


def test_numbers_that_are_none_spoil_no_neighbour(pipeline: Any) -> None:
    first, second = latents(2)
    first[0, 0, 0, 0] = torch.nan
    spoilt, well = Decoder(pipeline).decode([first, second])
    assert isinstance(spoilt, NoPicture)
    assert isinstance(well, Image.Image)


def test_large_pictures_are_decoded_in_tiles(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "TILED_ABOVE_PIXELS", 64 * 64)
    seen = watch(pipeline)
    (small,) = Decoder(pipeline).decode(latents(1, 8, 8))
    (large,) = Decoder(pipeline).decode(latents(1, 20, 16))
    assert seen[:2] == [(1, 0), (1, 64)]
    assert (small.size, large.size) == ((64, 64), (128, 160))  # type: ignore[union-attr]
    assert not pipeline.vae.use_tiling


def test_one_that_does_not_fit_is_tried_in_tiles(pipeline: Any) -> None:
    seen = watch(pipeline, fails=1)
    (image,) = Decoder(pipeline).decode(latents(1, 12, 16))
    assert isinstance(image, Image.Image)
    assert seen == [(1, 0), (1, 64)]


def test_tiles_get_smaller_until_they_fit(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of SDXL's VAE are as large as its pictures."""
    monkeypatch.setattr(decoding, "SMALL_TILE_SIDE", 32)
    seen = watch(pipeline, fails=3)
    with pytest.raises(MemoryError):
        Decoder(pipeline).decode(latents(1, 12, 16))
    assert seen == [(1, 0), (1, 64), (1, 32)]
    assert (pipeline.vae.tile_sample_min_size, pipeline.vae.tile_latent_min_size) == (64, 8)
    seen = watch(pipeline, fails=1)
    (image,) = Decoder(pipeline).decode(latents(1, 8, 6))
    assert image.size == (48, 64)  # type: ignore[union-attr]
    assert seen[0] == (1, 0)
    assert seen[-1] == (1, 32)


def test_one_that_is_no_larger_than_a_tile_cannot_be_cut(pipeline: Any) -> None:
    seen = watch(pipeline, fails=1)
    with pytest.raises(MemoryError):
        Decoder(pipeline).decode(latents(1))
    assert seen == [(1, 0)]


def test_several_that_do_not_fit_are_for_the_engine_to_part(pipeline: Any) -> None:
    seen = watch(pipeline, fails=1)
    with pytest.raises(MemoryError):
        Decoder(pipeline).decode(latents(2))
    assert seen == [(2, 0)]


@pytest.mark.parametrize(
    ("free_bytes", "asked", "succeeds"),
    [
        (300, [(1, 0)], True),
        (250, [(1, 64)], True),  # a large decoding would have ended the process
        (150, [], False),
    ],
)
def test_a_computer_with_little_memory(
    pipeline: Any,
    monkeypatch: pytest.MonkeyPatch,
    free_bytes: int,
    asked: list[tuple[int, int]],
    succeeds: bool,
) -> None:
    monkeypatch.setattr(decoding, "SURELY_FREE_BYTES", 0)
    monkeypatch.setattr(decoding, "free_bytes", lambda device_name: free_bytes)
    monkeypatch.setattr(decoding, "decode_bytes", lambda *sizes: 200 if sizes[-1] else 300)
    seen = watch(pipeline)
    if succeeds:
        (image,) = Decoder(pipeline).decode(latents(1, 12, 16))
        assert isinstance(image, Image.Image)
    else:
        with pytest.raises(MemoryError, match="decoding needs about"):
            Decoder(pipeline).decode(latents(1, 12, 16))
    assert seen == asked


def test_several_that_a_computer_has_no_room_for(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SURELY_FREE_BYTES", 0)
    monkeypatch.setattr(decoding, "free_bytes", lambda device_name: 6_000_000)
    with pytest.raises(MemoryError):  # 64 × 48 × 16 channels × 16 bytes × 8
        Decoder(pipeline).decode(latents(8))
    assert len(Decoder(pipeline).decode(latents(7))) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_tiles_take_less_memory_and_neither_more_than_expected(
    pipeline: Any, trim: Callable[[], None]
) -> None:
    (large,) = latents(1, 96, 96)
    pixels, taken = (8 * 96) ** 2, {}
    for side in (64, 0):
        trim()
        with decoding._tiles(pipeline.vae, side), Peak("cpu") as peak:
            pipeline.vae.decode(large)
        taken[side] = peak.growth_bytes or 0
        once_bytes = 48 * 1024**2  # by the first convolutions of a process
        assert taken[side] < decode_bytes(pipeline.vae, pixels, 4, side) + once_bytes
    assert 2 * taken[64] < taken[0]


def test_others_leave_before_a_picture_is_cut_into_tiles(pipeline: Any) -> None:
    there = ["unet"]

    def make_room() -> bool:
        return bool(there) and there.pop() == "unet"

    seen = watch(pipeline, fails=1)
    assert len(Decoder(pipeline, make_room).decode(latents(2))) == 2
    assert seen == [(2, 0), (2, 0)]
    seen = watch(pipeline, fails=2)
    there.append("unet")
    assert len(Decoder(pipeline, make_room).decode(latents(1, 12, 16))) == 1
    assert seen == [(1, 0), (1, 0), (1, 64)]


def test_the_safety_checker_holds_back_one_and_not_the_other(pipeline: Any) -> None:
    pipeline.safety_checker = object()
    pipeline.run_safety_checker = lambda pixels, device, dtype: (pixels, [True, False])
    held_back, free = Decoder(pipeline).decode(latents(2))
    assert isinstance(held_back, GenerationFailed)
    assert not isinstance(held_back, NoPicture)
    assert isinstance(free, Image.Image)


def test_a_watermark_is_applied(pipeline: Any) -> None:
    pipeline.watermark = SimpleNamespace(apply_watermark=lambda pixels: pixels * 0 + 1)
    (white,) = Decoder(pipeline).decode(latents(1))
    assert isinstance(white, Image.Image)
    assert white.getextrema() == ((255, 255),) * 3


def test_latents_with_a_mean_of_their_own(pipeline: Any) -> None:
    """As SDXL's pipeline takes it: times the deviation, over the factor, plus the mean."""
    (plain,) = latents(1)
    before = Decoder(pipeline).decode([plain])[0]
    mean, deviation = [0.5, -0.5, 0.25, 0.0], [2.0, 1.0, 1.0, 0.5]
    pipeline.vae.register_to_config(latents_mean=mean, latents_std=deviation)
    factor = pipeline.vae.config.scaling_factor
    rows = torch.tensor(mean).view(1, 4, 1, 1), torch.tensor(deviation).view(1, 4, 1, 1)
    shifted = (plain - rows[0] * factor) / rows[1]
    after = Decoder(pipeline).decode([shifted])[0]
    assert isinstance(before, Image.Image)
    away = numpy.abs(numpy.asarray(before, int) - numpy.asarray(after, int))
    assert away.max() <= 1


@pytest.mark.parametrize(("layout", "dtype"), [("sdxl", "float32"), ("sd1", "float16")])
def test_only_the_vae_that_overflows_in_halves_is_kept_whole(layout: Any, dtype: str) -> None:
    pipeline = tiny_pipeline(layout).to(torch.float16)
    assert pipeline.vae.config.force_upcast
    Decoder(pipeline)
    assert pipeline.vae.dtype == getattr(torch, dtype)
