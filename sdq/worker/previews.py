"""From latents to a small picture of how far it is, without the VAE: a linear map of its own.

Each latent pixel becomes one pixel: channels times a matrix, plus a constant. The numbers are
found by least squares from what the model's own VAE makes of a few fields of colour, when the
first preview is asked for; so they fit any VAE, and no table of them is needed.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sdq.worker.decoding import Decoder

FIELDS = 24
FIELD_LATENTS = 4
"""Pictures for the fit, and their sides in latent pixels: 384 equations for some ten unknowns a
colour, at the price of one picture of 160 × 160 through the VAE's encoder. With the built-in model
more and larger ones fit no better."""

_log = logging.getLogger(__name__)


class Previewer:
    """For the engine's thread. A VAE that cannot be fitted is tried once and gives no previews.

    ``before_fit``: brings the VAE to where it can be called.
    """

    def __init__(
        self, pipeline: Any, decoder: Decoder, before_fit: Callable[[], None] = lambda: None
    ) -> None:
        self._pipeline = pipeline
        self._decoder = decoder
        self._before_fit = before_fit
        self._map: Tensor | None = None
        self._was_tried = False

    def picture(self, latents: Tensor) -> Image.Image | None:
        """RGB, one pixel for each of the latents, which are 1 × channels × height × width."""
        if not self._was_tried:
            self._was_tried = True  # whatever comes of it
            self._map = self._fitted(latents.device)
        if self._map is None:
            return None
        values = self._decoder.unscaled(latents)[0].float().cpu()
        if not values.isfinite().all():
            return None
        pixels = _with_one(values.permute(1, 2, 0)) @ self._map
        scaled = (pixels * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(scaled.numpy(), "RGB")

    def _fitted(self, device: torch.device) -> Tensor | None:
        try:
            self._before_fit()
            return fit(self._pipeline.vae, self._pipeline.vae_scale_factor, device)
        except Exception as error:  # noqa: BLE001 - whatever a VAE does, its pictures are drawn
            _log.warning("no previews: %s: %s", type(error).__name__, error)
            return None


def fit(vae: Any, scale_factor: int, device: torch.device) -> Tensor | None:
    """The map from the VAE's latents to colours between -1 and 1: (channels + 1) × 3.

    ``device``: where the VAE calculates. ``None`` when its numbers are none.
    """
    fields = colour_fields(FIELDS, FIELD_LATENTS * scale_factor)
    encoded = vae.encode(fields.to(device, vae.dtype))
    # The small VAEs give their latents, the others a distribution around them.
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    channels = latents.shape[1]
    known = latents.permute(0, 2, 3, 1).reshape(-1, channels).cpu().double()
    wanted = functional.avg_pool2d(fields, scale_factor).permute(0, 2, 3, 1).reshape(-1, 3)
    found: Tensor = torch.linalg.lstsq(_with_one(known), wanted.double()).solution.float()
    return found if found.isfinite().all() else None


def colour_fields(count: int, side: int) -> Tensor:
    """Pictures of two colours each that run into one another, always the same ones.

    count × 3 × side × side, between -1 and 1. Smooth: at an edge the VAE's own sharpness would be
    fitted, and colours are what is wanted.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    line = torch.linspace(-1, 1, side)
    angles = torch.rand(count, 1, 1, generator=generator) * 2 * math.pi
    along = torch.cos(angles) * line.view(1, 1, side) + torch.sin(angles) * line.view(1, side, 1)
    share = (0.5 + 0.7 * along).clamp(0, 1).unsqueeze(1)
    ends = torch.rand(2, count, 3, 1, 1, generator=generator) * 2 - 1
    return ends[0] + (ends[1] - ends[0]) * share


def clean(noisy: Tensor, prediction: Tensor, time: float, scheduler: Any) -> Tensor | None:
    """What the model takes the finished latents to be, from what it was shown and what it said.

    ``noisy`` as the UNet saw them: whatever the scheduler, those are √ᾱ x + √(1 - ᾱ) ε with the
    ᾱ of ``time``. Epsilon: Ho et al. 2020, equation 15; v: Salimans and Ho 2022, appendix D.
    ``None`` for schedulers that count otherwise.
    """
    shares = getattr(scheduler, "alphas_cumprod", None)
    if shares is None:
        return None
    share = float(shares[min(max(round(time), 0), len(shares) - 1)])
    signal, noise = math.sqrt(share), math.sqrt(1 - share)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (noisy - noise * prediction) / signal if signal else None
    if kind == "v_prediction":
        return signal * noisy - noise * prediction
    return prediction if kind == "sample" else None


def _with_one(values: Tensor) -> Tensor:
    """The last dimension longer by a one: what the map's constant is multiplied with."""
    return torch.cat([values, values.new_ones(*values.shape[:-1], 1)], dim=-1)
