"""Drawing on a CPU beside a process that keeps a core busy: what waiting threads cost.

Draws with the built-in model in processes of their own, with OpenMP's default policy (threads
spin while they wait) and with the passive one that sdq's worker sets, alone and with a busy
neighbour, in turn.

    python bench/neighbours.py [--pictures 6]
"""

import argparse
import os
import subprocess
import sys

from measure import machine

DRAW = """
import statistics, sys, time
import torch
from diffusers import DiffusionPipeline
from sdq_shapes import folder
pipeline = DiffusionPipeline.from_pretrained(str(folder()), dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
seconds = []
for _ in range(int(sys.argv[1]) + 1):
    begin = time.perf_counter()
    pipeline("a red circle", num_inference_steps=20, guidance_scale=4.0)
    seconds.append(time.perf_counter() - begin)
print(statistics.median(seconds[1:]))
"""
BUSY = "while True: pass"


def draw(policy: str, pictures: int) -> float:
    """Median seconds a picture."""
    environ = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if policy:
        environ["OMP_WAIT_POLICY"] = policy
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(pictures)],
        env=environ,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=6)
    options = parser.parse_args()
    print(f"machine: {machine()}")
    for name, neighbours in (("alone", 0), ("beside a busy process", 1)):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(neighbours)]
        try:
            spinning, passive = draw("", options.pictures), draw("PASSIVE", options.pictures)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        print(f"{name}: default {spinning:.2f} s a picture, passive {passive:.2f} s")


if __name__ == "__main__":
    main()
