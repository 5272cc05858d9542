"""The command itself: wall time and peak memory of whole processes, in turn, in one run.

Beside `python -c pass`, the least that anything written in Python takes, and `hf --help`, another
command of this field (it comes with diffusers). The thousand pictures of the batch are put into
the library beforehand: nothing is drawn.

    python bench/cli.py [--rounds 11] [--batch-rounds 5] [--pictures 1000]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from measure import machine, running, spread

from sdq.metadata import Provenance, png_bytes
from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.library.library import Library
from sdq.spec import SpecDraft, derived_seed, key_of

ASKED_PICTURES_PER_SECOND = 300
SIDE_PIXELS = 128

CLOCK = """
import json, os, sys, time
nothing = os.open(os.devnull, os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, nothing, fd) for fd in (0, 1, 2)]
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - begin
print(json.dumps([seconds, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]))
"""
"""Starts a process and waits for it. It is small, since Linux counts what the parent held at the
start of a process as if it were the child's."""


@dataclass(frozen=True)
class Run:
    """One whole process."""

    seconds: float
    peak_bytes: int


def timed(argv: Sequence[str], environ: dict[str, str]) -> Run:
    """Standard input and output lead nowhere. Ends all when the command fails."""
    clock = [sys.executable, "-I", "-S", "-c", CLOCK, *argv]
    told = subprocess.run(clock, env=environ, check=True, capture_output=True).stdout
    seconds, peak_bytes, code = json.loads(told)
    if code:
        raise SystemExit(f"{argv} ended with {code}")
    return Run(seconds, peak_bytes)


def prompt_of(number: int) -> str:
    return f"picture {number} of the batch"


async def fill(data_dir: Path, pictures: int) -> None:
    """Puts pictures as a worker sends them into the library, of noise, 26 KB each."""
    from PIL import Image

    noise = Image.effect_noise((SIDE_PIXELS, SIDE_PIXELS), 80).convert("RGB")
    catalog = Catalog.load()
    database = await Database.open(data_dir / "sdq.sqlite3")
    library = await Library.open(
        database, data_dir / "library", retention_days=30, max_bytes=2**30, memory_bytes=0
    )
    for number in range(pictures):
        base = catalog.resolve(SpecDraft(prompt_of(number)))
        spec = msgspec.structs.replace(base, seed=derived_seed(base, 0))
        manifest = catalog.manifest(spec.model)
        key = key_of(spec, manifest.fingerprint)
        told = Provenance(spec, key, manifest.fingerprint, manifest.fingerprint[:10], "cpu", {})
        await library.put(key, spec, png_bytes(noise, told), 0.5)
    await library.close()
    await database.close()


def quick(environ: dict[str, str], folder: Path, rounds: int) -> None:
    """The commands that are over at once."""
    beside = Path(sys.executable).parent
    sdq = str(beside / "sdq")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "hf --help": [str(beside / "hf"), "--help"],
        "sdq --help": [sdq, "--help"],
        "sdq generate, a hit": [
            sdq, "generate", prompt_of(0), "-o", str(folder / "out.png"), "--force",
        ],
    }  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for argv in commands.values():  # warm: byte code is compiled
        timed(argv, environ)
    for _ in range(rounds):
        for name, argv in commands.items():
            runs[name].append(timed(argv, environ))
    for name, ours in runs.items():
        bare = zip(ours, runs["python -c pass"], strict=True)
        ratio = statistics.median(one.seconds / other.seconds for one, other in bare)
        print(f"{name}: {told_of(ours)}, {ratio:.1f} x python -c pass")


def batch(environ: dict[str, str], folder: Path, pictures: int, rounds: int) -> None:
    """All pictures into an empty folder; then the same again, when all files are there."""
    lines = folder / "prompts.txt"
    lines.write_text("".join(f"{prompt_of(number)}\n" for number in range(pictures)))
    sdq = str(Path(sys.executable).parent / "sdq")
    news, agains = [], []
    for number in range(rounds + 1):
        out = folder / f"out-{number}"
        argv = [sdq, "batch", str(lines), "-o", f"{out}/{{line:04}}.png"]
        new, again = timed(argv, environ), timed(argv, environ)
        if len(list(out.glob("*.png"))) != pictures:
            raise SystemExit(f"{out} does not hold {pictures} pictures")
        if number:  # the first one warms
            news.append(new)
            agains.append(again)
    for name, ours in (("hits", news), ("up to date", agains)):
        rates = [pictures / run.seconds for run in ours]
        asked = f" (asked: {ASKED_PICTURES_PER_SECOND})" if ours is news else ""
        print(f"sdq batch, {pictures:,} {name}: {told_of(ours)}, {spread(rates, '/s', 1)}{asked}")


def told_of(runs: Sequence[Run]) -> str:
    peak = statistics.median(run.peak_bytes for run in runs) / 1e6
    return f"{spread([run.seconds for run in runs])}, peak {peak:.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch-rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=1_000)
    options = parser.parse_args()
    load = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    print(f"machine: {machine()}; load average {load}")

    def prepare(home: Path) -> None:
        asyncio.run(fill(home / "server", options.pictures))

    with running("server", prepare=prepare) as stack, tempfile.TemporaryDirectory() as name:
        environ = stack.environ | {"SDQ_SERVER": stack.address}
        environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"  # it would ask the network
        # What a person's shell has: byte code is kept, and nothing is flushed at each line.
        for variable in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
            environ.pop(variable, None)
        folder = Path(name)
        quick(environ, folder, options.rounds)
        batch(environ, folder, options.pictures, options.batch_rounds)


if __name__ == "__main__":
    main()
