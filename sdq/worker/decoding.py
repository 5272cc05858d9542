"""From latents to pictures: several in one call of the VAE, in tiles when they are large."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from sdq.errors import GenerationFailed
from sdq.worker.flight import NoPicture
from sdq.worker.memory import free_bytes, memory_errors

TILED_ABOVE_PIXELS = 1536 * 1536
"""Tiles save memory and leave faint seams, so only where a whole picture hardly ever fits."""


SMALL_TILE_SIDE = 512
"""Pixels. The tiles of SDXL's VAE are 1024 pixels wide, no help for a picture of that size."""

LEAST_CHANNELS = 16
"""As a CPU's convolutions are made for, whatever they are asked."""

SURELY_FREE_BYTES = 256 * 1024**2
"""Less than this is asked for without a look at what is free."""


class Decoder:
    """SDXL's VAE overflows in halves and says so: it is moved to full precision for good. The
    older ones say so too, by default, and their pipeline rightly does not care.

    ``make_room``: called when the device is full; says whether others left it, so that another
    attempt is worth while.
    """

    def __init__(self, pipeline: Any, make_room: Callable[[], bool] = lambda: False) -> None:
        self._pipeline = pipeline
        self._make_room = make_room
        vae = pipeline.vae
        is_xl = getattr(pipeline, "text_encoder_2", None) is not None
        if is_xl and vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
            vae.to(dtype=torch.float32)

    def decode(self, latents: Sequence[Tensor]) -> list[Image.Image | Exception]:
        """Pictures in RGB, or why there is none; latents of one size, 1 × channels × h × w.

        Raises `MemoryError` when it is too much at once; a single one is tried in tiles first.
        """
        stacked = self.unscaled(torch.cat(list(latents)))
        height, width = (side * self._pipeline.vae_scale_factor for side in stacked.shape[2:])
        pixels = self._fitting(stacked, self._ways(height, width))
        pixels, unsafe = self._looked_at(pixels)
        processor = self._pipeline.image_processor
        arrays = processor.postprocess(pixels, output_type="np", do_denormalize=None)
        return [
            picture_of(processor, array, held_back)
            for array, held_back in zip(arrays, unsafe, strict=True)
        ]

    def unscaled(self, latents: Tensor) -> Tensor:
        """The VAE's own latents, of those that the UNet works on."""
        vae = self._pipeline.vae
        latents = latents.to(next(vae.parameters()).dtype)  # ``vae.dtype`` asks all of them
        mean, deviation = (getattr(vae.config, f"latents_{x}", None) for x in ("mean", "std"))
        if mean is None or deviation is None:
            return latents / vae.config.scaling_factor  # type: ignore[no-any-return]
        mean = latents.new_tensor(mean).view(1, -1, 1, 1)
        deviation = latents.new_tensor(deviation).view(1, -1, 1, 1)
        return latents * deviation / vae.config.scaling_factor + mean  # type: ignore[no-any-return]

    def _ways(self, height: int, width: int) -> list[int]:
        """Sides of tiles in pixels, the best way first; 0: the picture as a whole."""
        own: int = getattr(self._pipeline.vae, "tile_sample_min_size", 0)
        sides = sorted({own, min(own, SMALL_TILE_SIDE)}, reverse=True)
        tiles = [side for side in sides if 0 < side < max(height, width)]
        return tiles if tiles and height * width > TILED_ABOVE_PIXELS else [0, *tiles]

    def _fitting(self, latents: Tensor, ways: Sequence[int]) -> Tensor:
        try:
            with memory_errors(str(latents.device)):
                self._check_computer(latents, ways[0])
                return self._pixels(latents, ways[0])
        except MemoryError:
            has_room = self._make_room()
            if not has_room and (len(ways) == 1 or len(latents) > 1):
                raise
        # Not before the error is gone: it holds what was made until then.
        return self._fitting(latents, ways if has_room else ways[1:])

    def _check_computer(self, latents: Tensor, tile_side: int) -> None:
        """Raises `MemoryError` on a CPU that has too little: there the process would be ended."""
        if latents.device.type != "cpu":
            return
        height, width = (side * self._pipeline.vae_scale_factor for side in latents.shape[2:])
        pixels, item_bytes = len(latents) * height * width, latents.element_size()
        needed = decode_bytes(self._pipeline.vae, pixels, item_bytes, tile_side)
        if needed > SURELY_FREE_BYTES and needed > (free_bytes("cpu") or needed):
            raise MemoryError(f"decoding needs about {needed / 1e9:.1f} GB of memory")

    def _pixels(self, latents: Tensor, tile_side: int) -> Tensor:
        with _tiles(self._pipeline.vae, tile_side):
            pixels: Tensor = self._pipeline.vae.decode(latents, return_dict=False)[0]
        return pixels

    def _looked_at(self, pixels: Tensor) -> tuple[Tensor, list[bool]]:
        """After the model's safety checker and its watermark, where it has them."""
        if getattr(self._pipeline, "watermark", None) is not None:
            pixels = self._pipeline.watermark.apply_watermark(pixels)
        if getattr(self._pipeline, "safety_checker", None) is None:
            return pixels, [False] * len(pixels)
        pixels, unsafe = self._pipeline.run_safety_checker(pixels, pixels.device, pixels.dtype)
        return pixels, [bool(held_back) for held_back in unsafe]


def decode_bytes(vae: Any, pixels: int, item_bytes: int, tile_side: int = 0) -> int:
    """What decoding so many pixels takes at most on a CPU, beside the weights; an estimate.

    ``item_bytes``: of one number. ``tile_side``: in pixels, 0 for the picture as a whole.

    The largest moment is at full size, between two convolutions of the last block: its channels
    twice as they are and twice in full numbers. Measured with the VAE of Stable Diffusion (256
    channels, 256 × 256 to 384 × 384): 12 to 18 bytes for each channel and pixel in float32, 9 to
    13 in bfloat16. In tiles it is that of one of them, and all the finished ones in three colours.
    """
    names = ("block_out_channels", "decoder_block_out_channels")
    channels = max(max(getattr(vae.config, name, (0,))[:2]) for name in names)
    channels = max(channels, LEAST_CHANNELS)
    each: int = channels * 2 * (4 + item_bytes)
    if not tile_side or pixels <= tile_side**2:
        return pixels * each
    return tile_side**2 * each + pixels * 10 * item_bytes


@contextmanager
def _tiles(vae: Any, side: int) -> Iterator[None]:
    if not side:
        yield
        return
    own = vae.tile_sample_min_size, vae.tile_latent_min_size
    vae.tile_sample_min_size, vae.tile_latent_min_size = side, side * own[1] // own[0]
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = own


def picture_of(processor: Any, array: Any, held_back: bool) -> Image.Image | Exception:
    """From height × width × 3 numbers between 0 and 1; why it is none in its place."""
    if held_back:
        return GenerationFailed("the model's safety checker held the picture back")
    if not numpy.isfinite(array).all():
        return NoPicture(
            "the model gave no picture but numbers that are none (NaN)",
            hint="half precision may be too small for this model: try another device",
        )
    image: Image.Image = processor.numpy_to_pil(array[None])[0]
    return image
