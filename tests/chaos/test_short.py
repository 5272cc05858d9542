"""The short version of `make chaos`: real processes, killed in the middle; nothing is lost."""

from pathlib import Path

import pytest

from sdq.testing.chaos.plan import SHORT
from sdq.testing.chaos.run import run

SEED = 20_261_123


@pytest.mark.timeout(150)
async def test_nothing_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    verdict = await run(SEED, SHORT, tmp_path / "chaos", said.append)
    print("\n".join(verdict.lines()))
    assert verdict.is_good, "\n".join([*verdict.lines(), f"everything of it: {tmp_path}"])
    assert len(verdict.deeds) >= 6
    assert verdict.jobs >= 60
