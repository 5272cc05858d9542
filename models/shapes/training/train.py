"""UNet and text encoder, trained together to predict v from noised latents and captions."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from training.latents import Latents
from training.loop import State

WARM_UP = 200
STEADY = 0.3
"""The part of the budget after which the rate begins to fall."""
TIMES = 1000


@dataclass(frozen=True)
class DenoiserSettings:
    """Size and training of UNet and text encoder; the defaults are the shipped model's."""

    widths: tuple[int, int, int] = (64, 128, 192)
    text_width: int = 128
    text_layers: int = 2
    heads: int = 4
    groups: int = 16
    batch: int = 32
    rate: float = 1.2e-3
    empty: float = 0.1
    average: float = 0.996


def scheduler() -> Any:
    """The noise schedule, as it is saved with the model."""
    return DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def build_text_encoder(settings: DenoiserSettings, tokenizer: Any) -> Any:
    """A new CLIP text encoder for the tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=4 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=settings.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(settings: DenoiserSettings, channels: int) -> Any:
    """A new UNet.

    `addition_embed_type="text"` adds the pooled caption to the time embedding: without it the
    model was many times slower to learn colours. The pipeline needs to know nothing of it.
    """
    cross_down, cross_up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=settings.widths,
        layers_per_block=1,
        addition_embed_type="text",
        addition_embed_type_num_heads=settings.heads,
        down_block_types=("DownBlock2D", cross_down, cross_down),
        up_block_types=(cross_up, cross_up, "UpBlock2D"),
        cross_attention_dim=settings.text_width,
        # In this class the name stands for the number of heads, not for their size.
        attention_head_dim=settings.heads,
        norm_num_groups=settings.groups,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet.to(memory_format=torch.channels_last)


class DenoiserTrainer:
    """The stage that trains both; `averaged` gives the weights to keep."""

    def __init__(
        self, data: Latents, tokenizer: Any, settings: DenoiserSettings, seed: int = 5
    ) -> None:
        self._settings, self._data = settings, data
        # Layers draw their first weights from torch's global generator; the fork leaves it alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text = build_text_encoder(settings, tokenizer).train()
            self.unet = build_unet(settings, data.latents.shape[1]).train()
        self._ids = self._tokens(tokenizer, data.captions)
        self._empty = self._tokens(tokenizer, [""])[0]
        self._alphas = scheduler().alphas_cumprod
        self._parameters = [*self.unet.parameters(), *self.text.parameters()]
        self._averages = [p.detach().clone() for p in self._parameters]
        self._generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = []
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )

    def begin_with(self, unet: State, text: State) -> None:
        """Takes the weights of a finished model in place of new ones."""
        self.unet.load_state_dict(unet)
        self.text.load_state_dict(text)
        self._averages = [p.detach().clone() for p in self._parameters]

    @staticmethod
    def _tokens(tokenizer: Any, captions: list[str]) -> torch.Tensor:
        encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        ids: torch.Tensor = encoded.input_ids
        return ids

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next latents and captions; every picture once before any comes again."""
        size = self._settings.batch
        while len(self._order) < size:
            # What is left of a round is not dropped, so that small sets work as well.
            more = torch.randperm(len(self._data.captions), generator=self._generator)
            self._order += more.tolist()
        chosen = torch.tensor(self._order[:size])
        del self._order[:size]
        latents = self._data.latents[chosen].contiguous(memory_format=torch.channels_last)
        tokens = self._ids[chosen].clone()
        # Empty captions teach what guidance needs: a picture of anything.
        tokens[torch.rand(size, generator=self._generator) < self._settings.empty] = self._empty
        return latents, tokens

    def _loss(self) -> torch.Tensor:
        latents, tokens = self._batch()
        size = len(latents)
        # One time from each of `size` equal parts: less noisy gradients than free choice.
        spread = torch.arange(size) + torch.rand(size, generator=self._generator)
        times = (spread / size * TIMES).long().clamp(max=TIMES - 1)
        noise = torch.randn(latents.shape, generator=self._generator)
        alpha = self._alphas[times].view(-1, 1, 1, 1)
        signal, strength = alpha.sqrt(), (1 - alpha).sqrt()
        target = signal * noise - strength * latents
        with torch.autocast("cpu", torch.bfloat16):
            context = self.text(tokens)[0]
            noised = signal * latents + strength * noise
            predicted = self.unet(noised, times, context, return_dict=False)[0]
        return functional.mse_loss(predicted.float(), target)

    def train_step(self, step: int, part: float) -> float:
        """One step; the rate warms up, stays, and falls along a cosine."""
        fall = 1.0
        if part >= STEADY:
            fall = 0.5 + 0.5 * math.cos(math.pi * (part - STEADY) / (1 - STEADY))
        rate = self._settings.rate * min(1, (step + 1) / WARM_UP) * fall
        for group in self._optimizer.param_groups:
            group["lr"] = rate + 1e-6
        loss = self._loss()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._average(step + 1)
        return loss.item()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        keep = min(self._settings.average, (step + 1) / (step + 10))
        for average, parameter in zip(self._averages, self._parameters, strict=True):
            average.lerp_(parameter, 1 - keep)

    def averaged(self) -> tuple[Any, Any]:
        """Copies of UNet and text encoder with the averaged weights."""
        unet, text = copy.deepcopy(self.unet).eval(), copy.deepcopy(self.text).eval()
        parameters = [*unet.parameters(), *text.parameters()]
        for parameter, average in zip(parameters, self._averages, strict=True):
            parameter.data.copy_(average)
        return unet, text

    def state(self) -> State:
        """Weights, averages, optimizer, generator, and what is left of the round."""
        return {
            "unet": self.unet.state_dict(),
            "text": self.text.state_dict(),
            "averages": self._averages,
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "order": list(self._order),
        }

    def restore(self, state: State) -> None:
        """Puts a state back."""
        self.unet.load_state_dict(state["unet"])
        self.text.load_state_dict(state["text"])
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._order = list(state["order"])
