"""Drawing on a CPU beside a process that keeps a core busy: what waiting threads cost.

Draws with the built-in model in processes of their own: with OpenMP's default (threads spin for
long), with the short spin that sdq's worker sets, and with no spin at all; alone and beside a
busy process, in turn. `GOMP_SPINCOUNT` is described in the manual of GNU's OpenMP library.

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
WAYS: tuple[dict[str, str], ...] = (
    {},
    {"GOMP_SPINCOUNT": "1000"},
    {"OMP_WAIT_POLICY": "PASSIVE"},
)


def draw(waiting: dict[str, str], pictures: int) -> float:
    """Median seconds a picture."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_WAIT", "GOMP_"))}
    environ |= waiting
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
            long, short, none = (draw(waiting, options.pictures) for waiting in WAYS)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        print(f"{name}: long spin {long:.2f} s a picture, short {short:.2f} s, none {none:.2f} s")


if __name__ == "__main__":
    main()
