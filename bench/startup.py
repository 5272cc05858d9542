"""Start-up of the command and memory at rest, beside `python -c pass`, in one run.

python bench/startup.py [--rounds 15]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine, process_seconds, resident_megabytes, running, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"machine: {machine()}")
    with running("up") as stack, tempfile.TemporaryDirectory() as folder:
        environ = stack.environ | {"SDQ_SERVER": stack.address}
        sdq = [str(Path(sys.executable).parent / "sdq")]
        out = str(Path(folder) / "out.png")
        hit = [*sdq, "generate", "a red circle on a blue background", "-o", out, "--force"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "sdq --help": [*sdq, "--help"],
            "sdq generate, a hit": hit,
        }
        for argv in commands.values():  # warm: the picture is drawn, byte code is compiled
            subprocess.run(argv, env=environ, check=True, capture_output=True)
        report(commands, environ, options.rounds)
    with running("server") as stack:
        print(
            f"idle server, resident: {resident_megabytes(stack.process.pid):.1f} MB (asked: < 90)"
        )


def report(commands: dict[str, list[str]], environ: dict[str, str], rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            seconds[name].append(process_seconds(argv, environ))
    base = seconds["python -c pass"]
    for name, values in seconds.items():
        ratios = [ours / bare for ours, bare in zip(values, base, strict=True)]
        print(f"{name}: {spread(values)}, {statistics.median(ratios):.1f} x python -c pass")


if __name__ == "__main__":
    main()
