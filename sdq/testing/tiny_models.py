"""Stable Diffusion in all its layouts with a few thousand random weights, built in a second.

They draw noise, but by the same code, the same shapes and the same conditions as the real
ones. The same ``layout`` always has the same weights.
"""

import string
from typing import Any, Literal

Layout = Literal["sd1", "sd2", "sdxl", "turbo", "sdxl_turbo", "lcm"]
LAYOUTS: tuple[Layout, ...] = ("sd1", "sd2", "sdxl", "turbo", "sdxl_turbo", "lcm")

_TOKENS = 16
_HIDDEN = 16
_TIME_CHANNELS = 8  # of each of SDXL's six sizes
_GUIDANCE_CHANNELS = 32


def tiny_pipeline(layout: Layout) -> Any:
    """diffusers' own pipeline: v-prediction for ``sd2``, two text encoders for ``sdxl``, trailing
    timesteps for those with turbo, guidance as an input of the UNet for ``lcm``. Pictures have
    eight times the sides of their latents."""
    from sdq.worker import pipelines

    pipelines.silence()
    import diffusers
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(LAYOUTS.index(layout))
        is_xl = layout.startswith("sdxl")
        parts = {
            "vae": _vae(),
            "unet": _unet(layout),
            "scheduler": _scheduler(layout),
            "tokenizer": _tokenizer(),
            "text_encoder": _text_encoder("CLIPTextModel"),
        }
        if is_xl:
            parts["tokenizer_2"] = _tokenizer()
            parts["text_encoder_2"] = _text_encoder("CLIPTextModelWithProjection")
            pipeline = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
        else:
            pipeline = diffusers.StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _unet(layout: Layout) -> Any:
    import diffusers
    import torch

    is_xl = layout.startswith("sdxl")
    sizes: dict[str, Any] = {}
    if layout == "lcm":
        sizes = {"time_cond_proj_dim": _GUIDANCE_CHANNELS}
    if is_xl:
        sizes = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_CHANNELS,
            "projection_class_embeddings_input_dim": 6 * _TIME_CHANNELS + _HIDDEN,
            "transformer_layers_per_block": (1, 2),
        }
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * _HIDDEN if is_xl else _HIDDEN,
        **sizes,
    )
    with torch.no_grad():  # fresh ones answer with nearly nothing, whatever they are asked
        for name, weights in unet.named_parameters():
            if "attn2" in name and weights.dim() > 1:
                weights.mul_(4)
        unet.conv_out.weight.mul_(3)
        if unet.time_embedding.cond_proj is not None:
            unet.time_embedding.cond_proj.weight.mul_(3)
    return unet.eval()


def _vae() -> Any:
    import diffusers
    import torch

    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(3)
    return vae.eval()


def _scheduler(layout: Layout) -> Any:
    import diffusers

    return diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        prediction_type="v_prediction" if layout == "sd2" else "epsilon",
        timestep_spacing="trailing" if "turbo" in layout else "leading",
    )


def _tokenizer() -> Any:
    import transformers

    letters = [*string.ascii_lowercase, *string.digits, ",", "."]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        model_max_length=_TOKENS,
    )


def _text_encoder(class_name: str) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=2 + 2 * (len(string.ascii_lowercase) + len(string.digits) + 2),
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=_TOKENS,
        projection_dim=_HIDDEN,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return getattr(transformers, class_name)(config).eval()
