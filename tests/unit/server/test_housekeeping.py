"""What is done now and then, whatever becomes of the rest of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdq.errors import StackError
from sdq.server import housekeeping
from sdq.server.housekeeping import Housekeeping
from sdq.spec import SpecDraft
from sdq.testing.rig import Rig, open_rig
from sdq.testing.transport import resolved


class Enough(Exception):
    """Ends what runs for ever."""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        yield rig


async def run(rig: Rig, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    seen = 0

    def each_time() -> None:
        nonlocal seen
        seen += 1
        if seen > rounds:
            raise Enough

    monkeypatch.setattr(housekeeping, "HOUSEKEEPING_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "PRUNE_EVERY_SECONDS", 0.0)
    with pytest.raises(Enough):
        async with asyncio.timeout(10):
            await Housekeeping(rig.library, rig.table).run(each_time)


@pytest.mark.parametrize("error", [StackError("the disk is full"), KeyError("a defect")])
@pytest.mark.parametrize("failing", ["flush_used", "prune"])
async def test_what_fails_is_told_once_and_keeps_nothing_else_from_its_work(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
    error: Exception,
):
    calls: list[str] = []

    def doing(name: str) -> Any:
        async def step(*_: object) -> Any:
            calls.append(name)
            if name == failing:
                raise error
            return (0, 0) if name == "prune" else 0

        return step

    for owner, name in ((rig.library, "flush_used"), (rig.library, "prune"), (rig.table, "purge")):
        monkeypatch.setattr(owner, name, doing(name))
    await run(rig, monkeypatch, rounds=3)
    monkeypatch.undo()  # the library is closed yet
    assert calls == ["flush_used", "prune", "purge"] * 3
    assert len(caplog.messages) == 1
    assert str(error) in caplog.text


async def test_of_too_many_finished_jobs_the_oldest_are_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.bring_worker()
    await rig.submit(SpecDraft("a cat"))
    await rig.draw_all()
    done: list[str] = []
    for _ in range(5):
        rig.clock.now += 1
        done += await rig.submit(SpecDraft("a cat"))
    waiting = await rig.submit(SpecDraft("a dog"))
    monkeypatch.setattr(housekeeping, "MAX_FINISHED_JOBS", 2)
    await run(rig, monkeypatch, rounds=1)
    assert set(await rig.table.get_many(done)) == set(done[-2:])
    assert set(await rig.table.get_many(waiting)) == set(waiting)


async def test_a_library_full_of_pinned_pictures_says_so_once_and_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    spec = resolved(SpecDraft(prompt="kept"))
    await rig.library.put("a" * 64, spec, bytes(10), 1.0)
    await rig.library.pin(["a" * 64], pinned=True)
    rig.library.max_bytes = 4
    await run(rig, monkeypatch, rounds=3)
    told = [record.getMessage() for record in caplog.records if "pinned" in record.getMessage()]
    assert len(told) == 1
    assert "6 bytes over its limit" in told[0]
    assert await rig.library.put("b" * 64, spec, bytes(10), 1.0)
