"""A real worker process with a fake pipeline: ``python -m sdq.testing.worker HOME …``.

Celery, Redis, engine, heartbeat and signals are the real ones; only the drawing is not. With
``--redis`` it writes a minimal ``worker.json`` into HOME (no model files, no torch); without,
it takes the one that is there. ``--model`` and ``--fingerprint`` must be those of the server's
catalog for the server to give it jobs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sdq.config import Home, WorkerSettings
from sdq.errors import ModelError, SdqError
from sdq.protocol.model import (
    ModelDefaults,
    ModelFile,
    ModelLimits,
    ModelManifest,
    canary_spec,
    fingerprint_of,
)
from sdq.testing.pipeline import FakePipeline
from sdq.testing.stepping import SteppingFake
from sdq.worker import app, models
from sdq.worker.flight import Capacity, Drawer, Pipeline
from sdq.worker.holding import Holding
from sdq.worker.pipelines import SCHEDULERS
from sdq.worker.profile import DrawOptions, Profile
from sdq.worker.supply import Supply

_SIDE_PIXELS = 64
_MAX_SIDE_PIXELS = 1024


def fake_manifest(model_id: str = "shapes", fingerprint: str = "") -> ModelManifest:
    """A manifest whose one file does not exist; for a `FakePipeline`."""
    files = (ModelFile(path="fake.safetensors", size_bytes=1, sha256="0" * 64, links=()),)
    return ModelManifest(
        model_id=model_id,
        title="Fake",
        kind="folder",
        license="MIT",
        files=files,
        defaults=ModelDefaults(
            width=_SIDE_PIXELS,
            height=_SIDE_PIXELS,
            num_inference_steps=4,
            guidance_scale=4.0,
            scheduler="ddim",
        ),
        limits=ModelLimits(
            min_side=8,
            max_side=_MAX_SIDE_PIXELS,
            max_pixels=_MAX_SIDE_PIXELS**2,
            max_steps=500,
            schedulers=tuple(SCHEDULERS),
        ),
        canary_prompt="a red circle on a blue background",
        fingerprint=fingerprint or fingerprint_of(files),
    )


def fake_profile(**changes: Any) -> Profile:
    """What a measurement might have found: two at once pay, four do not."""
    measured = Profile(
        options=DrawOptions(),
        device_name="cpu",
        device_label="fake",
        dtype="float32",
        offload="none",
        canary_seconds=0.5,
        load_seconds=0.1,
        weights_bytes=1_000_000,
        peak_bytes=3_000_000,
        at_once=2,
        area_pixels=2 * _SIDE_PIXELS**2,
        turn_seconds={1: 0.02, 2: 0.03, 4: 0.06},
    )
    return msgspec.structs.replace(measured, **changes)


def fake_config(
    redis_url: str, worker_id: str = "fake-worker", *manifests: ModelManifest
) -> models.WorkerConfig:
    """The configuration of a worker that was never installed; one model when none is named."""
    installed = tuple(
        models.InstalledModel(manifest, fake_profile())
        for manifest in manifests or (fake_manifest(),)
    )
    return models.WorkerConfig(redis_url=redis_url, worker_id=worker_id, models=installed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the worker until a signal ends it; the exit code is that of `sdq worker run`."""
    options = _parser().parse_args(arguments)
    home = Home(Path(options.home).absolute())
    if options.redis:
        manifests = [
            fake_manifest(name, options.fingerprint) for name in options.model or ["shapes"]
        ]
        models.save_config(home, fake_config(options.redis, options.worker_id, *manifests))
    config = models.load_config(home)
    manifests = [installed.manifest for installed in config.models]
    supply = Supply(
        manifests=manifests,
        holdings=[_holding(manifest, options) for manifest in manifests],
        device="fake",
        at_once=max(1, options.at_once),
        budget_bytes=options.fit_in_memory,
    )
    settings = WorkerSettings(
        concurrency=options.concurrency,
        drain_seconds=options.drain_seconds,
        keep_alive_seconds=options.keep_alive,
    )
    versions = {"sdq": app.installed_versions()["sdq"], "torch": "none", "diffusers": "none"}
    try:
        return app.serve(home, config, supply, settings, versions=versions)
    except SdqError as error:
        print(f"sdq: {error.message}; {error.hint}", file=sys.stderr)
        return error.exit_code


def _holding(manifest: ModelManifest, options: argparse.Namespace) -> Holding:
    """Each model takes one unit of the memory."""
    pipeline = _pipeline(options)

    def load() -> Pipeline | Drawer:
        time.sleep(options.load_seconds)
        if manifest.model_id == options.fail_load:
            raise ModelError("the fake model was told not to load")
        return pipeline

    return Holding(manifest.model_id, load, canary_spec(manifest), needs_bytes=1)


def _pipeline(options: argparse.Namespace) -> Pipeline | Drawer:
    faults = {
        "fail_on": options.fail_on,
        "fail_times": options.fail_times,
        "out_of_memory_on": options.out_of_memory_on,
        "nan_on": options.nan_on,
        "black_on": options.black_on,
        "break_after": options.break_after,
        "drawn_log": options.drawn_log,
    }
    if not options.at_once:
        return FakePipeline(options.seconds_per_step, **faults)
    capacity = Capacity(options.at_once, _MAX_SIDE_PIXELS**2)
    return SteppingFake(options.seconds_per_step, capacity=capacity, **faults)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sdq.testing.worker", description=__doc__)
    parser.add_argument("home")
    parser.add_argument("--redis", default="", help="write a minimal configuration with this URL")
    parser.add_argument("--model", action="append", help="give it again for more of them")
    parser.add_argument(
        "--fit-in-memory", type=int, default=0, help="so many models at once; 0: all of them"
    )
    parser.add_argument("--keep-alive", type=float, default=0.0)
    parser.add_argument("--fingerprint", default="")
    parser.add_argument("--worker-id", default="fake-worker")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--seconds-per-step", type=float, default=0.0)
    parser.add_argument(
        "--at-once", type=int, default=0, help="pictures that share each step; 0: none do"
    )
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--fail-load", default="", help="this model cannot be loaded")
    for word in ("fail", "out-of-memory", "nan", "black"):
        parser.add_argument(f"--{word}-on", default="", help="a word in the prompt")
    parser.add_argument("--fail-times", type=int, default=1_000_000)
    parser.add_argument(
        "--break-after", type=int, default=0, help="from this picture on, nothing succeeds"
    )
    parser.add_argument("--drawn-log", type=Path, help="a file that gets a line a picture")
    parser.add_argument("--drain-seconds", type=float, default=WorkerSettings.drain_seconds)
    return parser


if __name__ == "__main__":
    sys.exit(main())
