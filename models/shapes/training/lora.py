"""Trains a LoRA of the finished model: the neon style, a file of a few hundred kilobytes.

python -m training.lora --out neon.safetensors [--minutes 15] [--model DIR] [--work DIR]

Small matrices beside the UNet's attention, feed-forward and convolutions learn; everything else
stays as it is. Latents and checkpoints stay in the work folder: an interrupted run goes on
from its last checkpoint, at most a minute old.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import sdq_shapes
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict

from training import latents
from training.loop import Budget, State, run
from training.make_model import Report, claim
from training.neon import neon
from training.train import DenoiserSettings, DenoiserTrainer

SEED = 2028
MINUTES = 15.0
PICTURES = 5_000
RANK = 4
RATE = 3e-3
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv_in", "conv1", "conv2", "conv_out")
LAYERS = ATTENTION + FEED_FORWARD + CONVOLUTIONS


class LoraTrainer(DenoiserTrainer):
    """As the model's own training, with the LoRA alone learning.

    Raises RuntimeError where the pipeline's UNet or text encoder is not of the settings' size.
    """

    def __init__(
        self,
        data: latents.Latents,
        pipeline: Any,
        settings: DenoiserSettings,
        rank: int = RANK,
        seed: int = SEED,
    ) -> None:
        super().__init__(data, pipeline.tokenizer, settings, seed=seed)
        self.begin_with(pipeline.unet.state_dict(), pipeline.text_encoder.state_dict())
        self.text.requires_grad_(False).eval()
        self.unet.requires_grad_(False)
        # With alpha equal to the rank the weight 1 means the matrices as they are trained, and
        # the file needs no word about alpha. First weights come from torch's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS)))
        self._parameters = [p for p in self.unet.parameters() if p.requires_grad]
        self._averages = [p.detach().clone() for p in self._parameters]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )

    def write(self, file: Path) -> None:
        """Writes the averaged LoRA in half precision, in diffusers' layout; whole or not at all."""
        before = [p.detach().clone() for p in self._parameters]
        self._set(self._averages)
        # Under peft's own names: diffusers' conversion renames the attention's alone, and what is
        # named in two ways is read in one: the other half would be lost without an error.
        layers = get_peft_model_state_dict(self.unet)
        partial = file.with_name("partial-" + file.name)
        StableDiffusionPipeline.save_lora_weights(
            file.parent,
            unet_lora_layers={name: value.half() for name, value in layers.items()},
            weight_name=partial.name,
        )
        partial.chmod(0o644)  # safetensors makes files that only their owner may read
        partial.replace(file)
        self._set(before)

    @torch.no_grad()
    def _set(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state(self) -> State:
        """The LoRA, averages, optimizer, generator, and what is left of the round."""
        return {
            "lora": [p.detach() for p in self._parameters],
            "averages": self._averages,
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "order": list(self._order),
        }

    def restore(self, state: State) -> None:
        """Puts a state back."""
        self._set(state["lora"])
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._order = list(state["order"])


def make_lora(model: Path, out: Path, minutes: float, work: Path, report: Report) -> None:
    """Draws the pictures, trains, and writes the LoRA's file."""
    claim(work, minutes)
    out.parent.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    scale = pipeline.vae.config.scaling_factor
    vae = pipeline.vae.eval()
    data = latents.cached(vae, PICTURES, work / "latents.pt", report, seed=SEED, draw=neon)
    # The scale is the model's, not that of these darker pictures.
    data = latents.Latents(data.latents / data.scale * scale, data.captions, scale)
    report(f"latents: {len(data.captions)}")
    trainer = LoraTrainer(data, pipeline, DenoiserSettings(batch=16, rate=RATE))
    run(trainer, Budget(seconds=60 * minutes), work / "lora.pt", report)
    trainer.write(out)
    report(f"LoRA: {out}, {out.stat().st_size} bytes")


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Trains the neon LoRA of the built-in model.")
    parser.add_argument("--out", type=Path, required=True, help="the LoRA's .safetensors file")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training")
    parser.add_argument("--model", type=Path, default=sdq_shapes.folder())
    parser.add_argument("--work", type=Path, help="checkpoints; OUT.work unless named")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = options.work or options.out.with_name(options.out.name + ".work")
    started = time.perf_counter()

    def report(line: str) -> None:
        print(f"[{time.perf_counter() - started:6.0f} s] {line}", flush=True)

    make_lora(options.model, options.out, options.minutes, work, report)


if __name__ == "__main__":
    main()
