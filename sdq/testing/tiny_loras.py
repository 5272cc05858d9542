"""LoRAs of random numbers for any pipeline that takes them, in the files that diffusers writes."""

import hashlib
from pathlib import Path
from typing import Any

from sdq.spec import Lora

UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")


def write_lora(
    pipeline: Any,
    folder: Path,
    *,
    seed: int = 1,
    rank: int = 2,
    alpha: int = 6,
    strength: float = 1.0,
    in_text: bool = True,
    weight: float = 1.0,
) -> Lora:
    """A file ``<sha256>.safetensors`` in ``folder``; as a picture names it, with this weight.

    The pipeline, one with a UNet, is left as it was. ``in_text``: it changes the text encoders too.
    ``strength`` multiplies what it does: 0 does nothing.
    """
    import torch

    parts = ["unet", *(["text_encoder", "text_encoder_2"] if in_text else [])]
    parts = [part for part in parts if getattr(pipeline, part, None) is not None]
    layers: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in parts:
            weights, config = _random(getattr(pipeline, part), part == "unet", rank, alpha)
            layers[f"{part}_lora_layers"] = {
                name: tensor * (strength if "lora_B" in name else 1)
                for name, tensor in weights.items()
            }
            layers[f"{part}_lora_adapter_metadata"] = config
    pipeline.unload_lora_weights()
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.save_lora_weights(str(folder), weight_name="new.safetensors", **layers)
    made = folder / "new.safetensors"
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    made.rename(folder / f"{sha256}.safetensors")
    return Lora(name=f"random-{seed}", sha256=sha256, weight=weight)


def _random(part: Any, is_unet: bool, rank: int, alpha: int) -> tuple[dict[str, Any], Any]:
    """Its tensors and its settings, as diffusers wants to write them."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    layers = list(UNET_LAYERS if is_unet else TEXT_LAYERS)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        init_lora_weights=False,  # random ones
        target_modules=layers,
    )
    part.add_adapter(config, adapter_name="random")
    tensors = get_peft_model_state_dict(part, adapter_name="random")
    settings: Any = config
    return (
        {name: tensor.detach().clone() for name, tensor in tensors.items()},
        {**settings.to_dict(), "target_modules": sorted(layers)},
    )
