"""The built-in model of sdq: its weights and those of its LoRA, and where they lie.

The package holds files only and imports neither torch nor diffusers:

    pipe = diffusers.DiffusionPipeline.from_pretrained(sdq_shapes.folder(), dtype=torch.float32)
    pipe.load_lora_weights(sdq_shapes.loras(), weight_name="neon.safetensors")
"""

from pathlib import Path

__all__ = ["__version__", "folder", "loras"]

__version__ = "0.1.0"


def folder() -> Path:
    """The folder that holds the model in diffusers' layout (`model_index.json` and the rest)."""
    return Path(__file__).resolve().parent / "weights"


def loras() -> Path:
    """The folder that holds the model's LoRA files: `neon.safetensors`."""
    return Path(__file__).resolve().parent / "loras"
