"""Logs: the former one is kept, none grows without bound, their ends are safe to show."""

import asyncio
import time
from pathlib import Path

import pytest

from sdq.stack import logs
from sdq.stack.logs import bound_logs, fresh_log, last_lines


def test_a_fresh_log_keeps_the_former_one(tmp_path: Path) -> None:
    log = tmp_path / "run" / "server.log"
    for text in ("first", "second", "third"):
        fresh_log(log)
        log.write_text(text)

    assert log.read_text() == "third"
    assert (tmp_path / "run" / "server.log.1").read_text() == "second"


async def test_a_log_over_the_limit_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 1_000)
    log = tmp_path / "worker.log"
    with log.open("ab", buffering=0) as child:
        child.write(b"a" * 1_001)
        keeper = asyncio.create_task(
            bound_logs(lambda: [tmp_path / "none.log", log], interval_seconds=0.01)
        )
        deadline = time.monotonic() + 5
        while log.stat().st_size:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        child.write(b"goes on\n")
        keeper.cancel()
        await asyncio.wait({keeper})

    assert log.read_bytes() == b"goes on\n"
    assert (tmp_path / "worker.log.1").read_bytes() == b"a" * 1_001


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []

    log.write_text("old\n" + "".join(f"line {n}\n\n" for n in range(20)) + "\x1b[2Jred\n")

    assert last_lines(log)[-2:] == ["line 19", "�[2Jred"]
    assert len(last_lines(log)) == 8
    log.write_text("old\nnew\n" + "x" * 1_000)
    assert last_lines(log, start_bytes=4) == ["new", "x" * 300]
    assert last_lines(log, start_bytes=10_000) == ["old", "new", "x" * 300]
