"""Trains a finished model on, with new pictures: VAE and tokenizer stay as they are.

python -m training.continue_model --model sdq_shapes/weights --out ../../.cache/more --minutes 20

The pictures come from another seed than the first run's and leave out the held-out combinations
(`training.dataset`). Interrupted, it goes on from its checkpoint when it is started again.
"""

import argparse
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from training import latents
from training.loop import Budget, run
from training.make_model import Report, write
from training.train import DenoiserSettings, DenoiserTrainer

SEED = 2027
RATE = 6e-4
"""Half of a new model's: it begins where the first run's had fallen to nothing."""
PICTURES = 16_000
MINUTES = 20.0


def continue_model(model: Path, out: Path, minutes: float, pictures: int, report: Report) -> None:
    """Trains UNet and text encoder on and writes the whole model to `out`."""
    work = out.with_name(out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    scale = pipeline.vae.config.scaling_factor
    data = latents.cached(pipeline.vae.eval(), pictures, work / "latents.pt", report, seed=SEED)
    data = latents.Latents(data.latents / data.scale * scale, data.captions, scale)
    settings = DenoiserSettings(rate=RATE)
    trainer = DenoiserTrainer(data, pipeline.tokenizer, settings, seed=SEED)
    trainer.begin_with(pipeline.unet.state_dict(), pipeline.text_encoder.state_dict())
    run(trainer, Budget(seconds=60 * minutes), work / "unet.pt", report)
    unet, text = trainer.averaged()
    write(out, pipeline.vae, pipeline.tokenizer, unet, text)
    report(f"model: {out}")


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Trains a finished model on.")
    parser.add_argument("--model", type=Path, required=True, help="the folder to begin with")
    parser.add_argument("--out", type=Path, required=True, help="the new model's folder")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="new ones to draw")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.perf_counter()

    def report(line: str) -> None:
        print(f"[{time.perf_counter() - started:6.0f} s] {line}", flush=True)

    continue_model(options.model, options.out, options.minutes, options.pictures, report)


if __name__ == "__main__":
    main()
