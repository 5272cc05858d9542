"""Files that are written whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdq.client.saving import cannot_write, format_of, part_name, sweep, write_whole
from sdq.errors import OutputError, UsageError


def test_formats_by_their_endings() -> None:
    assert format_of("a/b.JPG") == format_of(Path("b.jpeg")) == "JPEG"
    with pytest.raises(UsageError, match="ends in no format") as caught:
        format_of("out.gif", ends_with=".png")
    assert caught.value.hint == "end it with .png"


def test_a_file_replaces_another_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.png"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.mkdir()
    with pytest.raises(OutputError, match="cannot write") as caught:
        write_whole(path, b"x", elsewhere="go away")
    assert caught.value.hint == "go away"
    assert list(tmp_path.iterdir()) == [path]
    full = cannot_write(path, OSError(errno.ENOSPC, "No space left on device"))
    assert "make room" in full.hint


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    script = "from sdq.client.saving import part_name; print(part_name())"
    dead = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
    ours, foreign = part_name(), f".sdq-elsewhere-{os.getpid()}-0.part"
    for name in (dead, ours, foreign, "mine.part"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {ours, foreign, "mine.part"}
