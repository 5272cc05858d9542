"""The architectures of Stable Diffusion 1.5 and SDXL 1.0 base in figures, as published."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Layout = Literal["sd1", "sdxl"]
LAYOUTS: tuple[Layout, ...] = ("sd1", "sdxl")

PUBLISHED_PARAMETERS: Mapping[Layout, Mapping[str, int]] = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
"""By part. What is built here has as many."""

TOKENS = 77
"""Of a prompt, at most."""


@dataclass(frozen=True)
class Part:
    """A module of a pipeline: its folder's name, whose class it is, and its figures."""

    name: str
    library: Literal["diffusers", "transformers"]
    class_name: str
    figures: Mapping[str, Any]

    def skeleton(self) -> Any:
        """The module on torch's ``meta`` device: all shapes, no memory, ready in a second."""
        import importlib

        import torch

        library = importlib.import_module(self.library)
        made = getattr(library, self.class_name)
        with torch.device("meta"):
            if self.library == "diffusers":
                return made(**self.figures)
            config = library.CLIPTextConfig(**self.figures)
            config.architectures = [self.class_name]
            return made(config)


@dataclass(frozen=True)
class Sizes:
    """What differs between the real size and a small one of the same form."""

    unet_channels: tuple[int, ...]
    unet_heads: (
        int | tuple[int, ...]
    )  # diffusers calls them attention_head_dim, for old times' sake
    vae_channels: tuple[int, ...]
    clip_hidden: int
    clip_layers: int
    clip_heads: int
    vocabulary: int
    big_hidden: int = 0  # the second text encoder's; 0: there is none
    big_layers: int = 0
    big_heads: int = 0
    transformer_layers: tuple[int, ...] = ()
    time_channels: int = 0  # of each of the six sizes that SDXL is told


_CLIP: Mapping[str, Any] = {"clip_hidden": 768, "clip_layers": 12, "clip_heads": 12}
_VAE_CHANNELS = (128, 256, 512, 512)

REAL_SIZES: Mapping[Layout, Sizes] = {
    "sd1": Sizes((320, 640, 1280, 1280), 8, _VAE_CHANNELS, **_CLIP, vocabulary=49408),
    "sdxl": Sizes(
        (320, 640, 1280),
        (5, 10, 20),
        _VAE_CHANNELS,
        **_CLIP,
        vocabulary=49408,
        big_hidden=1280,
        big_layers=32,
        big_heads=20,
        transformer_layers=(1, 2, 10),
        time_channels=256,
    ),
}


def parts_of(layout: Layout, sizes: Sizes) -> tuple[Part, ...]:
    """The modules with weights, in the order of `PUBLISHED_PARAMETERS`."""
    is_xl = layout == "sdxl"
    unet = _unet_xl(sizes) if is_xl else _unet_1(sizes)
    vae = _vae(sizes, side=1024 if is_xl else 512, scaling_factor=0.13025 if is_xl else 0.18215)
    clip = _clip(sizes, sizes.clip_hidden, sizes.clip_layers, sizes.clip_heads, "quick_gelu")
    parts = [
        Part("unet", "diffusers", "UNet2DConditionModel", unet),
        Part("vae", "diffusers", "AutoencoderKL", vae),
        Part("text_encoder", "transformers", "CLIPTextModel", clip),
    ]
    if is_xl:
        big = _clip(sizes, sizes.big_hidden, sizes.big_layers, sizes.big_heads, "gelu")
        parts.append(Part("text_encoder_2", "transformers", "CLIPTextModelWithProjection", big))
    return tuple(parts)


def _unet_1(sizes: Sizes) -> dict[str, Any]:
    return {
        "sample_size": 64,
        "block_out_channels": sizes.unet_channels,
        "layers_per_block": 2,
        "attention_head_dim": sizes.unet_heads,
        "cross_attention_dim": sizes.clip_hidden,
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    }


def _unet_xl(sizes: Sizes) -> dict[str, Any]:
    return {
        "sample_size": 128,
        "block_out_channels": sizes.unet_channels,
        "layers_per_block": 2,
        "attention_head_dim": sizes.unet_heads,
        "cross_attention_dim": sizes.clip_hidden + sizes.big_hidden,
        "transformer_layers_per_block": sizes.transformer_layers,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": sizes.time_channels,
        "projection_class_embeddings_input_dim": sizes.big_hidden + 6 * sizes.time_channels,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
    }


def _vae(sizes: Sizes, *, side: int, scaling_factor: float) -> dict[str, Any]:
    return {
        "sample_size": side,
        "block_out_channels": sizes.vae_channels,
        "layers_per_block": 2,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": scaling_factor,
    }


def _clip(sizes: Sizes, hidden: int, layers: int, heads: int, activation: str) -> dict[str, Any]:
    return {
        "vocab_size": sizes.vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "projection_dim": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": TOKENS,
        "hidden_act": activation,
        "bos_token_id": sizes.vocabulary - 2,
        "eos_token_id": sizes.vocabulary - 1,
        "pad_token_id": sizes.vocabulary - 1,
    }
