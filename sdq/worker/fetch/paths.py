"""Where a model's file may lie, and which kinds of file may come at all."""

from pathlib import Path

from sdq.errors import DownloadError, ModelError

ACCEPTED = (".safetensors", ".json", ".txt")
"""What cannot run code when it is read. Pickles can: ``.ckpt``, ``.bin``, ``.pt``, ``.pkl``."""

PICKLED = (".ckpt", ".bin", ".pt", ".pth", ".pkl", ".pickle")


def place(folder: Path, relative: str) -> Path:
    """``relative`` below ``folder``. Raises `DownloadError` for a path that leaves it."""
    root = folder.resolve()
    found = (root / relative).resolve()
    if root not in found.parents:
        raise DownloadError(
            f"the path {relative!r} leads out of {folder}",
            hint="the manifest is not to be trusted: ask whoever runs the server",
        )
    return found


def check_kind(name: str) -> None:
    """Raises `ModelError` for a file that is not to be accepted, whoever offers it."""
    if name.lower().endswith(ACCEPTED):
        return
    if name.lower().endswith(PICKLED):
        raise ModelError(
            f"{name} is refused: reading it (Python's pickle) would run whatever is in it",
            hint="ask for the model as safetensors; diffusers and transformers can convert it",
        )
    raise ModelError(
        f"{name} is refused: a model is made of safetensors, JSON and plain text",
        hint="leave the file out of the catalog's entry",
    )
