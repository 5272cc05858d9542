"""Models in their real size, without their weights: what drawing with them costs beside diffusers.

Builds SD 1.5 (2.1 GB) and SDXL (6.9 GB) with random weights as fp16 safetensors, then

1. draws with sdq's engine and with diffusers' own call in turn, on the same loaded modules:
   load time, peak memory, seconds a step, their ratio, and how far the pictures differ;
2. goes the whole way: server, ``sdq worker install``, ``sdq worker run``, ``sdq generate``:
   how long each takes and how much memory the worker has at most.

Both are slow on a CPU: minutes for SD 1.5, most of an hour for SDXL at 1024 × 1024. All files
lie below .cache/full-size and are deleted at the end, unless they are kept.

    python bench/full_size.py [--model sd1,sdxl] [--steps 2] [--rounds 3] [--side 0]
        [--device cpu] [--dtype auto] [--threads 0] [--skip worker] [--keep] [--json FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from beside import Setting, compare, peak_megabytes
from drawing import CACHE, Model, folder_of, forget, model_of
from measure import Stack, machine, running, spread

from sdq.client import connect
from sdq.testing import full_size

READY_SECONDS = 900.0
POLL_SECONDS = 0.25
MODEL_ID = "full-size"
SMALLER_SIDE = 512
HALVES = ("bfloat16", "float16")
DECODED_BYTES_PER_PIXEL = 2_500
"""At the VAE's widest place, in halves: some 256 channels, several of them at once."""


def build(name: str) -> tuple[Path, dict[str, Any]]:
    """The model's folder, and how many weights of each part are in it."""
    folder = folder_of(name)
    published = full_size.PUBLISHED_PARAMETERS[name]  # type: ignore[index]
    found = {part: parameters_of(folder / part) for part in published}
    for part, count in found.items():
        same = "as published" if count == published[part] else f"published: {published[part]:,}"
        print(f"  {part:<15} {count:>13,} parameters, {same}")
    return folder, {"parameters": found}


def parameters_of(folder: Path) -> int:
    """Counted in the file's header."""
    from safetensors import safe_open

    (file,) = folder.glob("*.safetensors")
    total = 0
    with safe_open(file, "numpy") as opened:
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            count = 1
            for side in opened.get_slice(name).get_shape():
                count *= side
            total += count
    return total


def fitting(model: Model, folder: Path, options: argparse.Namespace) -> tuple[Model, str]:
    """What is asked for if the memory allows, else halves, else halves and a smaller picture.

    While it is loaded it is there twice, as its file has it and as it is drawn with; what
    decoding takes comes after that.
    """
    halves_bytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    free_bytes = psutil.virtual_memory().available
    for dtype, side in (
        (options.dtype, model.side),
        ("bfloat16", model.side),
        ("bfloat16", min(model.side, SMALLER_SIDE)),
    ):
        width = 1 if dtype in HALVES or options.device != "cpu" else 2
        needed_bytes = width * halves_bytes + max(
            halves_bytes, width * side**2 * DECODED_BYTES_PER_PIXEL
        )
        if options.device != "cpu" or needed_bytes < free_bytes:
            return model._replace(side=side), dtype
        print(
            f"  {side} × {side} in {dtype} needs {needed_bytes / 1e9:.1f} GB of memory, "
            f"{free_bytes / 1e9:.1f} are free"
        )
    raise SystemExit("too little memory for this model")


# ---------------------------------------------------------------- beside diffusers


def beside_diffusers(setting: Setting) -> dict[str, Any]:
    """In a process of its own, so that its memory is nobody else's."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        try:
            found = processes.submit(compare, setting).result()
        except BrokenProcessPool:
            raise SystemExit(
                f"{setting.model.name} at {setting.model.side} pixels was ended by the system: too "
                "little memory, most likely. Try --dtype bfloat16, or --side 512"
            ) from None
    show(found)
    return found


def show(found: dict[str, Any]) -> None:
    side, pairs = found["side"], found["pairs"]
    steps = {way: [pair[f"{way}_step_seconds"] for pair in pairs] for way in ("bare", "engine")}
    ratios = {
        what: statistics.median(pair[f"engine_{what}"] / pair[f"bare_{what}"] for pair in pairs)
        for what in ("step_seconds", "picture_seconds")
    }
    found["step_ratio"] = ratios["step_seconds"]
    found["picture_ratio"] = ratios["picture_seconds"]
    print(f"beside diffusers: {found['device']}, {found['dtype']}, {side} × {side}")
    print(
        f"  loaded in {found['load_seconds']:.1f} s; process at most "
        f"{found['loaded_megabytes'] / 1e3:.2f} GB while loading, "
        f"{found['peak_megabytes'] / 1e3:.2f} GB in all"
    )
    if "device_peak_megabytes" in found:
        print(f"  device at most {found['device_peak_megabytes'] / 1e3:.2f} GB")
    print(f"  a step, diffusers:    {spread(steps['bare'], 's', 1)}")
    print(f"  a step, sdq's engine: {spread(steps['engine'], 's', 1)}")
    print(f"  ratio of a step {ratios['step_seconds']:.3f} (asked: at most 1.03)", end="")
    print(f", of a picture {ratios['picture_seconds']:.3f}")
    worst = max(pair["difference"] for pair in pairs)
    print(f"  pictures differ by at most {worst}/255 in any pixel", flush=True)


# ---------------------------------------------------------------- through a worker


def through_a_worker(
    name: str, folder: Path, model: Model, dtype: str, options: argparse.Namespace
) -> dict[str, Any]:
    tempfile.tempdir = str(CACHE)  # the worker's copy of the model is as large as the model
    text = full_size.catalog_text(
        MODEL_ID,
        name,  # type: ignore[arg-type]
        folder,
        full_size.files_of(folder),
        side=model.side,
        steps=options.steps,
    )

    def prepare(home: Path) -> None:
        (home / "server").mkdir(parents=True, exist_ok=True)
        (home / "server" / "catalog.toml").write_text(text, "utf-8")

    with running("server", prepare) as stack:
        stack.environ["SDQ_SERVER"] = stack.address
        stack.environ["SDQ_WORKER_DEVICE"] = options.device
        if dtype != "auto":
            stack.environ["SDQ_WORKER_DTYPE"] = dtype
        if options.threads:
            stack.environ["OMP_NUM_THREADS"] = str(options.threads)
        print(f"through a worker: {model.side} × {model.side}, {options.steps} steps")
        found = install(stack)
        found |= asyncio.run(draw(stack))
    return found


def install(stack: Stack) -> dict[str, Any]:
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sdq", "worker", "install", "--model", MODEL_ID],
        env=stack.environ,
        stderr=(stack.home / "install.log").open("wb"),
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit((stack.home / "install.log").read_text())
    megabytes = usage.ru_maxrss * 1024 / 1e6
    print(f"  installed in {seconds:.1f} s, at most {megabytes / 1e3:.2f} GB")
    config = json.loads((stack.home / "worker" / "worker.json").read_text())
    profile = config["models"][0].get("profile", {})
    print(f"  measured there: {json.dumps(profile)}", flush=True)
    return {"install_seconds": seconds, "install_megabytes": megabytes, "profile": profile}


async def draw(stack: Stack) -> dict[str, Any]:
    begin = time.perf_counter()
    with worker(stack) as process:
        await ready(stack, process)
        found: dict[str, Any] = {"ready_seconds": time.perf_counter() - begin, "pictures": []}
        print(f"  ready to draw in {found['ready_seconds']:.1f} s after its start", flush=True)
        for prompt in ("a red circle", "a blue square"):
            seconds = await asyncio.to_thread(generate, stack, prompt)
            found["pictures"].append(seconds)
            print(f"  sdq generate: a picture in {seconds:.1f} s", flush=True)
        found["worker_megabytes"] = peak_megabytes(process.pid)
    print(f"  the worker had at most {found['worker_megabytes'] / 1e3:.2f} GB")
    return found


@contextmanager
def worker(stack: Stack) -> Any:
    with (stack.home / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sdq", "worker", "run"], env=stack.environ, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def ready(stack: Stack, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + READY_SECONDS
    async with connect(stack.address) as client:
        while time.monotonic() < until and process.poll() is None:
            if any(found.state == "ready" for found in (await client.status()).workers):
                return
            await asyncio.sleep(POLL_SECONDS)
    raise SystemExit("the worker did not get ready:\n" + (stack.home / "worker.log").read_text())


def generate(stack: Stack, prompt: str) -> float:
    out = stack.home / f"{prompt.replace(' ', '-')}.png"
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sdq", "generate", prompt, "--model", MODEL_ID, "-o", str(out)],
        env=stack.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not out.exists():
        raise SystemExit(done.stderr + (stack.home / "worker.log").read_text())
    return time.perf_counter() - begin


# ---------------------------------------------------------------- all of it


def main() -> None:
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"machine": machine()}
    print(f"machine: {machine()}")
    for name in options.model:
        model = model_of(name, options.side)
        print(f"{name}, load average {os.getloadavg()[0]:.2f}", flush=True)
        folder, found = build(name)
        model, dtype = fitting(model, folder, options)
        try:
            if "beside" not in options.skip:
                setting = Setting(
                    model,
                    folder,
                    options.device,
                    dtype,
                    options.steps,
                    options.rounds,
                    options.threads,
                )
                found["beside_diffusers"] = beside_diffusers(setting)
            if "worker" not in options.skip:
                found["through_a_worker"] = through_a_worker(name, folder, model, dtype, options)
        finally:
            if not options.keep:
                forget(name)
        everything[name] = found
    print(f"load average at the end {os.getloadavg()[0]:.2f}")
    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n", "utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=lambda text: text.split(","), default=["sd1", "sdxl"], help="sd1, sdxl"
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=0, help="of a picture; 0: the model's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto")
    parser.add_argument("--threads", type=int, default=0, help="torch's; 0: its own choice")
    parser.add_argument("--skip", action="append", default=[], choices=("beside", "worker"))
    parser.add_argument("--keep", action="store_true", help="leave the model where it is")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
