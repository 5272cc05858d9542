"""Measures what the neon LoRA changes: how dark the background gets, what of the colour stays.

python -m evaluation.lora [--lora FILE] [--json] [--sheet FILE]

Each of 24 prompts is drawn without the LoRA, at weight 0.5 and at weight 1, with the same noise.
All name a background that is not black and an object that is not black. Their combinations of
shape, colour and background are held out of the LoRA's training.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sdq_shapes
import torch
from evaluate import BATCH, SCHEDULERS, Settings, load_pipeline
from PIL import Image, ImageDraw
from training.page import SIDE

from evaluation.judge import BORDER, judge
from evaluation.prompts import Prompt, load

LORA = Path(__file__).resolve().parents[1] / "sdq_shapes" / "loras" / "neon.safetensors"
WEIGHTS = (0.0, 0.5, 1.0)
KINDS = {"one": 16, "place": 8}
DARK = 40.0
"""Below this mean brightness (of 255) a background counts as dark."""
SHOWN = (3, 4, 10, 13, 18, 22)
"""The numbers of the prompts on the sheet."""
LABEL_WIDTH = 34


@dataclass(frozen=True)
class Row:
    """What the pictures of one weight show; brightness is from 0 to 255, the rest are counts."""

    weight: float
    brightness: float
    dark: int
    colour: int
    place: int
    pictures: int


def prompts() -> list[Prompt]:
    """The first of each kind that the style can show and whose background it must change."""
    chosen: list[Prompt] = []
    for kind, count in KINDS.items():
        fitting = [
            prompt
            for prompt in load()
            if prompt.kind == kind
            and "black" not in (prompt.truth.background, prompt.truth.things[0].colour)
        ]
        chosen += fitting[:count]
    return chosen


def background_brightness(picture: Image.Image) -> float:
    """The mean of all channels of the outermost pixels, 0 to 255."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    edge = np.ones(pixels.shape[:2], dtype=bool)
    edge[BORDER:-BORDER, BORDER:-BORDER] = False
    return float(pixels[edge].mean())


def load_with_lora(settings: Settings, file: Path) -> Any:
    """The model with the LoRA beside it, as diffusers loads both."""
    pipeline = load_pipeline(settings)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="neon")
    return pipeline


def draw(
    pipeline: Any, settings: Settings, asked: list[Prompt], weight: float
) -> list[Image.Image]:
    """One picture for each prompt. Weight 0 takes the LoRA out altogether."""
    if weight:
        pipeline.enable_lora()
        pipeline.set_adapters(["neon"], [weight])
    else:
        pipeline.disable_lora()
    pictures: list[Image.Image] = []
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        first = settings.first_seed + start
        pictures += pipeline(
            [prompt.text for prompt in batch],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[
                torch.Generator().manual_seed(seed) for seed in range(first, first + len(batch))
            ],
        ).images
    return pictures


def measure(weight: float, asked: list[Prompt], pictures: list[Image.Image]) -> Row:
    """Judges the pictures of one weight."""
    verdicts = [judge(p, prompt.truth) for p, prompt in zip(pictures, asked, strict=True)]
    brightness = [background_brightness(picture) for picture in pictures]
    return Row(
        weight=weight,
        brightness=round(sum(brightness) / len(brightness), 1),
        dark=sum(value < DARK for value in brightness),
        colour=sum(verdict.colour for verdict in verdicts),
        place=sum(verdict.place is True for verdict in verdicts),
        pictures=len(pictures),
    )


def table(rows: Iterable[Row]) -> str:
    """The rows as text."""
    lines = [f"{'weight':>8}{'background':>14}{'dark':>12}{'colour':>12}{'place':>12}"]
    for row in rows:
        shares = (
            f"{row.dark} of {row.pictures}",
            f"{row.colour} of {row.pictures}",
            f"{row.place} of {KINDS['place']}",
        )
        name = f"{row.weight:g}" if row.weight else "without"
        cells = "".join(f"{share:>12}" for share in shares)
        lines.append(f"{name:>8}{row.brightness:>14.1f}{cells}")
    return "\n".join(lines)


def sheet(drawn: dict[float, list[Image.Image]]) -> Image.Image:
    """A row for each weight, a column for each of the prompts that are shown."""
    cell = SIDE + 4
    image = Image.new("RGB", (LABEL_WIDTH + len(SHOWN) * cell, len(drawn) * cell), "white")
    pen = ImageDraw.Draw(image)
    for row, (weight, pictures) in enumerate(drawn.items()):
        pen.text((6, row * cell + SIDE // 2), f"{weight:g}", fill="black", font_size=16)
        for column, number in enumerate(SHOWN):
            image.paste(pictures[number], (LABEL_WIDTH + column * cell, row * cell + 2))
    return image


def parse() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Measures what the neon LoRA changes.")
    parser.add_argument("--model", type=Path, default=sdq_shapes.folder())
    parser.add_argument("--lora", type=Path, default=LORA)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--scheduler", choices=list(SCHEDULERS), default="ddim")
    parser.add_argument("--first-seed", type=int, default=0, help="other noise, same prompts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--sheet", type=Path, help="write some of the pictures, side by side")
    return parser.parse_args()


def main() -> None:
    """Command line: see the top of this file."""
    options = parse()
    torch.set_num_threads(options.threads)
    settings = Settings(
        options.model, options.steps, options.guidance, options.scheduler, options.first_seed
    )
    pipeline = load_with_lora(settings, options.lora)
    asked = prompts()
    drawn = {weight: draw(pipeline, settings, asked, weight) for weight in WEIGHTS}
    rows = [measure(weight, asked, pictures) for weight, pictures in drawn.items()]
    if options.sheet:
        sheet(drawn).quantize(256).save(options.sheet, optimize=True)
    print(json.dumps([asdict(row) for row in rows]) if options.json else table(rows))


if __name__ == "__main__":
    main()
