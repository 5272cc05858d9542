"""The VAE: trained on crops, its latents brought to one scale, its decoder trained on.

It is diffusers' AutoencoderTiny: 8 times smaller each way, 8 channels.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from PIL import Image
from torch.nn import functional

from training.dataset import training
from training.loop import State
from training.page import SIDE

WARM_UP = 100
LATENT_NOISE = 0.1
FOLD_PICTURES = 256


@dataclass(frozen=True)
class VaeSettings:
    """Size and training of the VAE; the defaults are the shipped model's."""

    width: int = 32
    blocks: tuple[int, int, int, int] = (1, 2, 2, 2)
    channels: int = 8
    crop: int = 64
    batch: int = 16
    rate: float = 2e-3
    decoder_rate: float = 1.5e-3


def to_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """The pictures as one batch, with values from -1 to 1."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    batch = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    return batch.contiguous(memory_format=torch.channels_last)


def build(settings: VaeSettings, seed: int = 0) -> Any:
    """A new VAE whose layers start close to "shrink, pass through, enlarge"."""
    # Layers draw their first weights from torch's global generator; the fork leaves it alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(settings.width,) * 4,
            decoder_block_out_channels=(settings.width,) * 4,
            num_encoder_blocks=settings.blocks,
            num_decoder_blocks=settings.blocks[::-1],
            latent_channels=settings.channels,
        )
        _start_near_identity(vae)
    return vae.to(memory_format=torch.channels_last)


@torch.no_grad()
def _start_near_identity(vae: Any) -> None:
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            passing = torch.zeros_like(module.weight)
            diagonal = range(min(passing.shape[:2]))
            if module.stride == (2, 2):
                passing[diagonal, diagonal, :, :] = 1 / 9
            else:
                passing[diagonal, diagonal, 1, 1] = 1.0
            module.weight.copy_(module.weight * 0.7 + passing)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            last = None
            for layer in module.conv:
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight)
                    torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
                    last = layer
            # A block starts by adding little to what passes it.
            if last is not None:
                last.weight.mul_(0.1)


def _slopes(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The differences between neighbouring pixels, across and down."""
    across = images[..., 1:] - images[..., :-1]
    down = images[..., 1:, :] - images[..., :-1, :]
    return across, down


class VaeTrainer:
    """Trains the whole VAE, or its decoder alone, on crops of freshly drawn pictures."""

    def __init__(
        self, vae: Any, settings: VaeSettings, *, decoder_only: bool = False, seed: int = 7
    ) -> None:
        self.vae = vae
        self._settings = settings
        self._rate = settings.decoder_rate if decoder_only else settings.rate
        vae.encoder.requires_grad_(not decoder_only)
        self._rng = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._parameters = [p for p in vae.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=self._rate, betas=(0.9, 0.99), weight_decay=1e-3
        )

    def _batch(self) -> torch.Tensor:
        """Crops, two of each picture."""
        size, crops = self._settings.crop, []
        for _ in range(self._settings.batch // 2):
            picture = training(self._rng).picture
            for _ in range(2):
                y, x = self._rng.randint(0, SIDE - size), self._rng.randint(0, SIDE - size)
                crops.append(picture.crop((x, y, x + size, y + size)))
        return to_tensor(crops)

    def _loss(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.vae.encode(images).latents.float()
            noise = torch.randn(latents.shape, generator=self._generator)
            # The noise makes the decoder tolerant; the small penalty keeps latents small.
            decoded = self.vae.decode(latents + LATENT_NOISE * noise).sample
        decoded = decoded.float()
        edges = sum(
            (a - b).abs().mean() for a, b in zip(_slopes(decoded), _slopes(images), strict=True)
        )
        flat = (decoded - images).abs().mean() + functional.mse_loss(decoded, images)
        loss: torch.Tensor = flat + edges + 1e-3 * latents.square().mean()
        return loss

    def train_step(self, step: int, part: float) -> float:
        """One step; the rate warms up and then falls along a cosine."""
        rate = self._rate * min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * part))
        for group in self._optimizer.param_groups:
            group["lr"] = rate + 1e-6
        loss = self._loss(self._batch())
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        return loss.item()

    def state(self) -> State:
        """Weights, optimizer and both generators."""
        return {
            "vae": self.vae.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng.getstate(),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Puts a state back."""
        self.vae.load_state_dict(state["vae"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng.setstate(state["rng"])
        self._generator.set_state(state["generator"])


@torch.no_grad()
def fold(vae: Any, seed: int = 5) -> None:
    """Brings the latents to mean zero and to similar spreads in all channels.

    Shift and scale go into the encoder's last and the decoder's first convolution. The decoder
    clamps its input in a way that is not linear, so it must be trained on afterwards.
    """
    rng = random.Random(seed)
    images = to_tensor([training(rng).picture for _ in range(FOLD_PICTURES)])
    latents = vae.encode(images).latents
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    scale = (spread / spread.max()).sqrt() / spread
    last, first = vae.encoder.layers[-1], vae.decoder.layers[0]
    last.bias.copy_((last.bias - mean) * scale)
    last.weight.mul_(scale.view(-1, 1, 1, 1))
    first.bias.add_((first.weight * mean.view(1, -1, 1, 1)).sum((1, 2, 3)))
    first.weight.div_(scale.view(1, -1, 1, 1))
