"""Fixtures of the worker's tests: a spec, a manifest, bounded waiting, memory to be counted."""

import ctypes
import gc
import time
from collections.abc import Callable, Iterator

import pytest

from sdq.protocol.model import ModelManifest
from sdq.spec import ImageSpec
from sdq.testing.worker import fake_manifest

M_MMAP_THRESHOLD = -3  # malloc.h


@pytest.fixture
def spec() -> ImageSpec:
    return ImageSpec(
        prompt="a cat",
        negative_prompt="",
        model="shapes",
        width=64,
        height=48,
        num_inference_steps=4,
        guidance_scale=4.0,
        scheduler="ddim",
        seed=7,
    )


@pytest.fixture
def manifest() -> ModelManifest:
    return fake_manifest()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object]], None]:
    """Polls a condition; fails after ten seconds."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return wait


@pytest.fixture
def trim() -> Iterator[Callable[[], None]]:
    """Gives back what the process has freed and kept: without, what other tests used before would
    be used again, and nothing be seen to grow.

    Large blocks go straight from and to the system meanwhile: in a heap that other tests have left
    in pieces the same tensors would take more, or less, by chance.
    """
    libc = ctypes.CDLL(None)

    def release() -> None:
        gc.collect()
        libc.malloc_trim(0)  # malloc_trim(3)

    libc.mallopt(M_MMAP_THRESHOLD, 256 * 1024)  # mallopt(3)
    yield release
    libc.mallopt(M_MMAP_THRESHOLD, 32 * 1024**2)  # where glibc's own, which moves, ends up
