"""The built-in model of sdq: its weights, and where they lie.

The package holds files only and imports neither torch nor diffusers:

    pipe = diffusers.DiffusionPipeline.from_pretrained(sdq_shapes.folder(), dtype=torch.float32)
"""

from pathlib import Path

__all__ = ["__version__", "folder"]

__version__ = "0.1.0"


def folder() -> Path:
    """The folder that holds the model in diffusers' layout (`model_index.json` and the rest)."""
    return Path(__file__).resolve().parent / "weights"
