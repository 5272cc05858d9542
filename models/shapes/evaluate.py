"""Draws 100 prompts outside the training set and judges by pixels what the pictures show.

python evaluate.py [--model DIR] [--steps 20] [--guidance 4] [--scheduler ddim] [--json]
                   [--sheet FILE]

The figures are a table by kind of prompt, as text or as JSON. Seeds are fixed: picture N of
the 100 is drawn with seed N, so the same model on the same machine gives the same figures.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sdq_shapes
import torch
from evaluation.judge import Verdict, judge
from evaluation.prompts import KINDS, Prompt, load
from PIL import Image, ImageDraw
from training.page import SIDE

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
PARTS = ("background", "colour", "count", "place", "shape", "everything")
BATCH = 10


@dataclass(frozen=True)
class Settings:
    """How the pictures are drawn."""

    model: Path
    steps: int
    guidance: float
    scheduler: str
    first_seed: int = 0


def load_pipeline(settings: Settings) -> Any:
    """The model as diffusers loads it, on the CPU and in float32, with the chosen scheduler."""
    # Nothing is ever fetched: the folder is complete or the run fails.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import diffusers

    # Diffusers remarks that the VAE is a small one; that is meant.
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(settings.model, dtype=torch.float32)
    scheduler = getattr(diffusers, SCHEDULERS[settings.scheduler])
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(settings: Settings, prompts: list[Prompt]) -> list[Image.Image]:
    """One picture for each prompt."""
    pipeline = load_pipeline(settings)
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        first = settings.first_seed + start
        seeds = range(first, first + len(batch))
        result = pipeline(
            [prompt.text for prompt in batch],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )
        pictures += result.images
    return pictures


def summary(prompts: list[Prompt], verdicts: list[Verdict]) -> dict[str, dict[str, list[int]]]:
    """For each kind and in total, for each part: how many are right, of how many asked."""
    rows: dict[str, dict[str, list[int]]] = {}
    for kind in (*KINDS, "total"):
        chosen = [
            verdict
            for prompt, verdict in zip(prompts, verdicts, strict=True)
            if kind in (prompt.kind, "total")
        ]
        rows[kind] = {}
        for part in PARTS:
            asked = [value for v in chosen if (value := getattr(v, part)) is not None]
            rows[kind][part] = [sum(asked), len(asked)]
    return rows


def table(rows: dict[str, dict[str, list[int]]]) -> str:
    """The summary as text."""
    lines = [f"{'kind':8}" + "".join(f"{part:>12}" for part in PARTS)]
    for kind, row in rows.items():
        cells = (f"{right} of {asked}" if asked else "-" for right, asked in row.values())
        lines.append(f"{kind:8}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def sheet(pictures: list[Image.Image], verdicts: list[Verdict], columns: int = 10) -> Image.Image:
    """All pictures side by side, with a mark under those where something is wrong."""
    rows, cell = -(-len(pictures) // columns), SIDE + 6
    image = Image.new("RGB", (columns * cell, rows * cell), "white")
    pen = ImageDraw.Draw(image)
    for index, (picture, verdict) in enumerate(zip(pictures, verdicts, strict=True)):
        x, y = index % columns * cell, index // columns * cell
        image.paste(picture, (x + 1, y + 1))
        if not verdict.everything:
            pen.rectangle((x + 1, y + SIDE + 2, x + SIDE, y + SIDE + 4), fill=(220, 38, 38))
    return image


def mistakes(prompts: list[Prompt], verdicts: list[Verdict]) -> list[str]:
    """For each picture with something wrong, its number, what is wrong, and the prompt."""
    lines = []
    for index, (prompt, verdict) in enumerate(zip(prompts, verdicts, strict=True)):
        wrong = [part for part in PARTS[:-1] if getattr(verdict, part) is False]
        if wrong:
            lines.append(f"{index:3} {', '.join(wrong)}: {prompt.text}")
    return lines


def parse() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Judges the built-in model by pixels.")
    parser.add_argument("--model", type=Path, default=sdq_shapes.folder())
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), default="ddim")
    parser.add_argument("--first-seed", type=int, default=0, help="other noise, same prompts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--mistakes", action="store_true", help="list what is wrong, one by one")
    parser.add_argument("--sheet", type=Path, help="write the pictures, side by side")
    return parser.parse_args()


def main() -> None:
    """Command line: see the top of this file."""
    options = parse()
    torch.set_num_threads(options.threads)
    settings = Settings(
        options.model, options.steps, options.guidance, options.scheduler, options.first_seed
    )
    prompts = load()
    started = time.perf_counter()
    pictures = draw(settings, prompts)
    seconds = time.perf_counter() - started
    verdicts = [judge(p, prompt.truth) for p, prompt in zip(pictures, prompts, strict=True)]
    rows = summary(prompts, verdicts)
    if options.sheet:
        sheet(pictures, verdicts).save(options.sheet)
    if options.json:
        shown = {**asdict(settings), "model": settings.model.name}
        print(json.dumps({"settings": shown, "seconds": round(seconds, 1), "right": rows}))
        return
    print(table(rows))
    print(
        f"{settings.scheduler}, {settings.steps} steps, guidance {settings.guidance:g}, "
        f"{seconds:.0f} s for {len(pictures)} pictures"
    )
    if options.mistakes:
        print("\n".join(mistakes(prompts, verdicts)))


if __name__ == "__main__":
    main()
