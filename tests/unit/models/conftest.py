"""Makes the model's recipe importable and keeps its tests to one thread."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The recipe (`training`, `evaluation`, `evaluate`) is not part of any installed package: only
# the weights are shipped. The tests take it from where `python -m training...` runs.
RECIPE = Path(__file__).resolve().parents[3] / "models" / "shapes"
sys.path.insert(0, str(RECIPE))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    # The models here are so small that threads waiting for each other cost more than they give,
    # many times more when other tests run at the same time.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
