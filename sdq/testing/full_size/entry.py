"""The entry of such a model in a server's catalog.toml."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sdq.testing.full_size.layouts import Layout
from sdq.worker.models import sha256_of

_SCHEDULERS = (
    "ddim",
    "pndm",
    "euler",
    "euler_ancestral",
    "dpmpp_2m",
    "lcm",
    "heun",
    "unipc",
)


def catalog_text(
    model_id: str,
    layout: Layout,
    folder: Path,
    files: Sequence[str],
    *,
    side: int = 0,
    steps: int = 2,
    link: str = "",
    kind: Literal["folder", "single_file"] = "folder",
) -> str:
    """TOML for ``server/catalog.toml``: the files below ``folder``, hashed here (1 s a gigabyte).

    ``side`` and ``steps``: the defaults, which the proof picture of an install has too; 0 for
    the layout's own side. ``link``: what a file's path is hung on; without, ``file://``.
    """
    side = side or (1024 if layout == "sdxl" else 512)
    lines = [
        f"[models.{json.dumps(model_id)}]",
        f'title = "{layout} in its real size, random weights"',
        f'kind = "{kind}"',
        'license = "none: random numbers"',
        'canary_prompt = "a photograph of an astronaut riding a horse"',
        "",
        f"[models.{json.dumps(model_id)}.defaults]",
        f"width = {side}",
        f"height = {side}",
        f"num_inference_steps = {steps}",
        f"guidance_scale = {5.0 if layout == 'sdxl' else 7.5}",
        'scheduler = "euler"',
        "",
        f"[models.{json.dumps(model_id)}.limits]",
        "min_side = 64",
        "max_side = 2048",
        f"max_pixels = {2048 * 1024}",
        "max_steps = 150",
        f"schedulers = {json.dumps(_SCHEDULERS)}",
    ]
    base = (link or folder.resolve().as_uri()).rstrip("/")
    for name in files:
        path = folder / name
        lines += [
            "",
            f"[[models.{json.dumps(model_id)}.files]]",
            f"path = {json.dumps(name)}",
            f"size_bytes = {path.stat().st_size}",
            f'sha256 = "{sha256_of(path)}"',
            f"links = [{json.dumps(f'{base}/{name}')}]",
        ]
    return "\n".join(lines) + "\n"
