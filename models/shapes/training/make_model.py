"""Trains the model from nothing: tokenizer, VAE, latents, UNet with text encoder.

python -m training.make_model --out DIR [--minutes 78] [--work DIR] [--threads 2]

The minutes are training time: 16 of 78 go to the VAE and 62 to the UNet. Start-up and the
latents (24,000 for 78 minutes, fewer for less) come on top. Every stage leaves a file in the
work folder: a finished one is skipped, an interrupted one goes on from its last checkpoint,
at most a minute old.
"""

import argparse
import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

# Nothing is downloaded: all parts are made here. Set before the libraries read it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import StableDiffusionPipeline

from training import latents, tokenizer, vae
from training.loop import Budget, run
from training.train import DenoiserSettings, DenoiserTrainer, scheduler

Report: TypeAlias = Callable[[str], None]

FULL_MINUTES = 78.0
VAE_MINUTES, DECODER_MINUTES, UNET_MINUTES = 10.0, 6.0, 62.0
FULL_PICTURES = 24_000
FEWEST_PICTURES = 64
DECODER_SEED = 1234


def budget(minutes: float, of_full: float) -> Budget:
    """A stage's share of the run."""
    return Budget(seconds=minutes * 60 * of_full / FULL_MINUTES)


def claim(work: Path, minutes: float) -> None:
    """Makes the work folder this run's, or refuses one that belongs to another run."""
    plan, mine = work / "plan.json", {"minutes": minutes}
    work.mkdir(parents=True, exist_ok=True)
    if plan.exists() and json.loads(plan.read_text()) != mine:
        raise SystemExit(
            f"{work} holds a run of another length: {plan.read_text().strip()}. "
            "Name that length to go on with it, or remove the folder."
        )
    temporary = plan.with_name("plan.json.tmp")
    temporary.write_text(json.dumps(mine) + "\n")
    temporary.replace(plan)


def make_vae(minutes: float, work: Path, report: Report) -> Any:
    """Trains the VAE, folds the scale of its latents into it, trains the decoder on."""
    settings = vae.VaeSettings()
    model = vae.build(settings)
    trainer = vae.VaeTrainer(model, settings)
    run(trainer, budget(minutes, VAE_MINUTES), work / "vae.pt", report)
    vae.fold(model)
    decoder = vae.VaeTrainer(model, settings, decoder_only=True, seed=DECODER_SEED)
    run(decoder, budget(minutes, DECODER_MINUTES), work / "decoder.pt", report)
    return model.eval()


def make_denoiser(
    model: Any, words: Any, minutes: float, work: Path, report: Report
) -> tuple[Any, Any]:
    """Trains UNet and text encoder and returns both with averaged weights."""
    count = max(FEWEST_PICTURES, round(FULL_PICTURES * minutes / FULL_MINUTES))
    data = latents.cached(model, count, work / "latents.pt", report)
    report(f"latents: {len(data.captions)}")
    model.register_to_config(scaling_factor=data.scale)
    trainer = DenoiserTrainer(data, words, DenoiserSettings())
    run(trainer, budget(minutes, UNET_MINUTES), work / "unet.pt", report)
    return trainer.averaged()


def write(out: Path, model: Any, words: Any, unet: Any, text: Any) -> None:
    """Writes the pipeline in half precision; a folder already there is replaced at the end."""
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(model),
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(partial, safe_serialization=True)
    _tidy(partial / "vae" / "config.json")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)


def _tidy(config: Path) -> None:
    """Removes what the VAE notes of itself and does not know any more when it is loaded."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    for name in ("block_out_channels", "_name_or_path"):
        fields.pop(name, None)
    config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def make(out: Path, minutes: float, work: Path, report: Report) -> None:
    """All stages, and the finished model in `out`."""
    claim(work, minutes)
    words = tokenizer.build(tokenizer.caption_words())
    report(f"tokenizer: {len(words)} tokens")
    model = make_vae(minutes, work, report)
    unet, text = make_denoiser(model, words, minutes, work, report)
    write(out, model, words, unet, text)
    report(f"model: {out}")


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Trains the built-in model from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES, help="of training")
    parser.add_argument("--work", type=Path, help="checkpoints; OUT.work unless named")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = options.work or options.out.with_name(options.out.name + ".work")
    started = time.perf_counter()

    def report(line: str) -> None:
        print(f"[{time.perf_counter() - started:6.0f} s] {line}", flush=True)

    make(options.out, options.minutes, work, report)


if __name__ == "__main__":
    main()
