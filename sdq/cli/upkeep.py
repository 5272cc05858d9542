"""What `sdq server check` and `sdq server backup` say."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdq.cli.output import as_bytes, as_pictures, plain, print_data, print_json, tell
from sdq.server.upkeep.backup import backup
from sdq.server.upkeep.check import Finding, Told, check

MAX_LINES = 40
"""Findings told one by one; the others are counted."""

_ERASE = "\r\x1b[K"


def run_check(data_dir: Path, repair: bool, as_json: bool) -> int:
    """0: nothing is wrong any more; 1: something is left."""
    found: Counter[bool] = Counter()
    with _progress("checked") as told:
        for finding in check(data_dir, repair=repair, told=told):
            found[bool(finding.mended)] += 1
            if as_json:
                print_json(finding._asdict())
            elif found.total() <= MAX_LINES:
                _erase()
                print_data(_line(finding))
    if found.total() > MAX_LINES and not as_json:
        print_data(f"… and {found.total() - MAX_LINES} more")
    _sum_up(data_dir, repair, found)
    return 1 if found[False] else 0


def _line(finding: Finding) -> str:
    done = f" - {finding.mended}" if finding.mended else ""
    return f"{finding.kind}: {finding.subject}: {finding.text}{done}"


def _sum_up(data_dir: Path, repair: bool, found: Counter[bool]) -> None:
    if not found.total():
        tell(f"all is well in {plain(str(data_dir))}")
    elif not found[False]:
        tell(f"{found[True]} found, all mended")
    else:
        tell(f"{found.total()} found, {found[True]} mended, {found[False]} left")
        if not repair:
            tell("  next: stop the server and run `sdq server check --repair`")


def run_backup(data_dir: Path, file: Path, *, force: bool, as_json: bool) -> None:
    with _progress("copied") as told:
        done = backup(data_dir, file, force=force, told=told)
    if as_json:
        print_json({"file": str(file), **done._asdict()})
        return
    print_data(str(file))
    left_out = f", {done.left_out} left out: removed meanwhile, or damaged" if done.left_out else ""
    tell(f"{as_pictures(done.pictures)}, {as_bytes(done.size_bytes)}{left_out}")


@contextmanager
def _progress(word: str) -> Iterator[Told]:
    """A line on a terminal that moves; nothing elsewhere."""
    is_live = sys.stderr.isatty()

    def told(done: int, total: int) -> None:
        if is_live:
            sys.stderr.write(f"{_ERASE}{word}: {100 * done // total} %")
            sys.stderr.flush()

    try:
        yield told
    finally:
        _erase()


def _erase() -> None:
    if sys.stderr.isatty():
        sys.stderr.write(_ERASE)
        sys.stderr.flush()
