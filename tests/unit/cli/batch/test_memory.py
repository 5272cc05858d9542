"""Ten thousand lines take no more memory than a hundred."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sdq.testing.scripted_plans import ScriptedHouse
from sdq.testing.transport import ScriptedServer

Sdq = Callable[..., Awaitable[Any]]
PEAK = """
import pathlib, sys
from sdq.cli.main import main
code = main(sys.argv[1:])
said = pathlib.Path("/proc/self/status").read_text()
print(said.split("VmHWM:")[1].split()[0], file=sys.stderr)
sys.exit(code)
"""
MORE_BYTES = 8 * 2**20
"""Names of pictures and garbage that was not yet collected; the lines themselves are 9 MB."""


async def test_memory_does_not_grow_with_the_file(sdq: Sdq, tmp_path: Path) -> None:
    peaks = {}
    async with ScriptedServer(ScriptedHouse().handle) as server:
        for count in (100, 10_000):
            path = tmp_path / f"{count}.jsonl"
            rows = ({"prompt": f"{number} {'very ' * 180}long"} for number in range(count))
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            flags = ("plan", str(path), "-o", "{n}.png")
            outcome = await sdq(*flags, program=("-c", PEAK), server=server.address)
            assert outcome.code == 0, outcome.stderr
            assert f"{count} pictures: {count} new" in outcome.lines
            peaks[count] = int(outcome.stderr.split()[-1]) * 1024
    assert peaks[10_000] - peaks[100] < MORE_BYTES
