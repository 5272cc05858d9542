"""Draws the built-in model's proof picture and writes it into sdq's catalog as its golden one.

python golden.py [--catalog FILE] [--check]      (with sdq and its worker's packages installed)

The picture is the one that every installation draws: the entry's prompt, defaults and the seed
that follows from them, in float32 on the CPU. It is kept at 64x64. An installation makes its own
picture as small and compares the two (`sdq.worker.golden`: how, and what was measured for the
tolerance). To be run again whenever weights, canary prompt or defaults change; --check changes
nothing and exits with 1 when the golden picture is another one.
"""

import argparse
import re
import sys
from pathlib import Path

import msgspec
import sdq_shapes

import sdq.server
from sdq.protocol.model import ModelManifest, canary_spec
from sdq.server.catalog_file import parse
from sdq.worker import canary, golden, pipelines, stepping
from sdq.worker.devices import Device
from sdq.worker.flight import Capacity
from sdq.worker.whole import as_pipeline

CATALOG = Path(sdq.server.__path__[0]) / "catalog.toml"
_LINE = re.compile(r'^golden = ".*"\n', re.MULTILINE)
_BEFORE = re.compile(r"^\[models\.shapes\]\n(?:[a-z_]+ = .*\n)+", re.MULTILINE)


def drawn(manifest: ModelManifest) -> str:
    """The proof picture as the catalog has it."""
    spec = canary_spec(manifest)
    device = Device(name="cpu", dtype="float32", label="cpu")
    pipeline = pipelines.load(sdq_shapes.folder(), manifest, device)
    room = Capacity(1, spec.width * spec.height)
    ready = as_pipeline(stepping.engine_pipeline(pipeline, device, room))
    picture = canary.draw_alone(ready, spec, lambda: None)
    if fault := canary.fault_of(picture, spec):
        raise SystemExit(f"this is no picture: {fault}")
    return golden.encoded(picture)


def written(text: str, picture: str) -> str:
    """The catalog's text with this golden picture in the entry of the built-in model."""
    entry = _BEFORE.search(text)
    if entry is None:
        raise SystemExit("the catalog has no [models.shapes]")
    new = _LINE.sub("", entry[0]) + f'golden = "{picture}"\n'
    return text[: entry.start()] + new + text[entry.end() :]


def main() -> int:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Makes the built-in model's golden picture.")
    parser.add_argument("--catalog", type=Path, default=CATALOG)
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    options = parser.parse_args()
    text = options.catalog.read_text("utf-8")
    manifest = parse(text, str(options.catalog)).manifests["shapes"]
    picture = drawn(msgspec.structs.replace(manifest, golden=""))
    if options.check:
        fault = golden.fault_of(golden.decoded(picture), manifest.golden)
        print(fault or "the golden picture is right", file=sys.stderr)
        return int(bool(fault or not manifest.golden))
    options.catalog.write_text(written(text, picture), "utf-8")
    print(f"{options.catalog}: {len(picture)} characters", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
