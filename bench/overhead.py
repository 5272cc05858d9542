"""What sdq adds to one new picture over the same pipeline called directly, in one run.

A connected client asks for a picture that is not in the library and waits for its bytes; in
between, the same spec is drawn by the same pipeline in this process. Pairs, so that the
machine's drift cancels.

    python bench/overhead.py [--pairs 30] [--steps 20]
"""

import argparse
import asyncio
import os
import statistics
import time

from measure import machine, running, spread
from sdq_shapes import folder

from sdq.client import connect
from sdq.spec import ImageSpec, SpecDraft


def load_pipeline() -> object:
    # As sdq's worker does, or this process would slow the worker down: neighbours.py.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import torch
    import transformers
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    pipeline = DiffusionPipeline.from_pretrained(str(folder()), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: object, spec: ImageSpec) -> None:
    import torch

    pipeline(  # type: ignore[operator]
        spec.prompt,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width,
        height=spec.height,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
    )


async def measure(address: str, pairs: int, steps: int) -> None:
    pipeline = load_pipeline()
    through, direct = [], []
    async with connect(address) as client:
        for number in range(pairs + 2):
            draft = SpecDraft(f"a red circle number {number}", num_inference_steps=steps)
            begin = time.perf_counter()
            picture = await client.generate(draft)
            middle = time.perf_counter()
            draw(pipeline, picture.spec)
            end = time.perf_counter()
            if number >= 2:  # the first two warm both sides up
                through.append(middle - begin)
                direct.append(end - middle)
    added = [ours - bare for ours, bare in zip(through, direct, strict=True)]
    print(f"machine: {machine()}; shapes, {steps} steps, {pairs} pairs")
    print(f"through sdq:   {spread(through)}")
    print(f"pipeline alone: {spread(direct)}")
    print(f"added by sdq:  {spread(added)}   (asked: median at most 30 ms)")
    print(f"ratio of the medians: {statistics.median(through) / statistics.median(direct):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    with running("up") as stack:
        asyncio.run(measure(stack.address, options.pairs, options.steps))


if __name__ == "__main__":
    main()
