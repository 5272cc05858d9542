"""How far a batch is, as people see it."""

import pexpect
import pytest

from sdq.cli.batch.table import Counts, Pace, counts_in_words
from sdq.testing.scripted_plans import ScriptedHouse
from sdq.testing.transport import ScriptedServer


def test_counts_in_words() -> None:
    assert counts_in_words(Counts()) == "0 done"
    counts = Counts(total=9, made=1, hits=2, up_to_date=3, failed=1, running=2)
    assert counts_in_words(counts) == (
        "6 done: 1 made, 2 from the library, 3 up to date; 1 failed; 2 running"
    )


def test_the_pace_is_that_of_pictures_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace()
    pace.begin()
    assert pace.seconds_for(5) is None
    for _ in range(3):
        now += 2.0
        pace.begin()  # of another line
        pace.picture()
    assert pace.seconds_for(5) == 5 * 2.0
    assert pace.seconds_for(0) is None
    now += 6.0  # none comes: it takes longer
    assert pace.seconds_for(5) == 5 * 12.0 / 3


@pytest.mark.parametrize("together", [4, 64])
def test_the_pace_does_not_go_by_the_gaps_inside_a_burst(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace()
    pace.begin()
    for _ in range(100):
        now += 60.0 - 0.001 * together
        for _ in range(together):
            now += 0.001
            pace.picture()
        assert pace.seconds_for(together) == pytest.approx(60.0, rel=0.01)


def test_the_pace_is_that_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace()
    pace.begin()
    for seconds in [60.0] * 10 + [2.0] * 50:
        now += seconds
        pace.picture()
    assert pace.seconds_for(5) == 5 * 2.0


async def test_a_terminal_shows_what_is_left(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import sys

    house = ScriptedHouse(breaks={"three": -1})
    house.is_open.clear()
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    monkeypatch.setenv("TERM", "xterm")

    def talk(address: str, loop: asyncio.AbstractEventLoop) -> str:
        command = pexpect.spawn(
            sys.executable, ["-m", "sdq", "batch", "p.txt", "--server", address],
            cwd=str(tmp_path), dimensions=(24, 60), encoding="utf-8", timeout=20,
        )  # fmt: skip
        command.expect("0 of 3, 3 left")
        command.expect("3 running")
        command.expect("line 1  one")
        loop.call_soon_threadsafe(house.is_open.set)
        command.expect("error: line 3: it broke")
        command.expect("2 done: 2 made; 1 failed")
        command.expect(pexpect.EOF)
        command.close()
        assert command.exitstatus == 1
        return str(command.before)

    async with ScriptedServer(house.handle) as server:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(talk, server.address, loop)
