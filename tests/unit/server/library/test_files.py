"""Picture files: whole or not at all."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdq.server.library.files import PictureFiles

KEY = "ab" + "0" * 62
OTHER = "ab" + "1" * 62


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(tmp_path)


def write(files: PictureFiles, key: str, image: bytes) -> str:
    sha256 = files.stage(key, image)
    files.place(key)
    files.settle(key)
    return sha256


def everything(files: PictureFiles) -> list[str]:
    return sorted(path.name for path in files.directory.rglob("*") if path.is_file())


def test_a_picture_lies_below_the_first_digits_of_its_key(files: PictureFiles):
    assert write(files, KEY, b"picture") == hashlib.sha256(b"picture").hexdigest()
    assert (files.directory / "ab" / f"{KEY}.png").read_bytes() == b"picture"
    assert files.read(KEY, 7) == b"picture"
    assert everything(files) == [f"{KEY}.png"]


def test_another_size_or_no_file_is_nothing(files: PictureFiles):
    write(files, KEY, b"picture")
    assert files.read(KEY, 6) is None
    assert files.read(OTHER, 7) is None


def test_writing_again_replaces(files: PictureFiles):
    write(files, KEY, b"first")
    write(files, KEY, b"second")
    assert files.read(KEY, 6) == b"second"


def test_what_was_there_is_there_again_when_it_is_undone(files: PictureFiles):
    write(files, KEY, b"first")
    files.stage(KEY, b"second")
    assert files.read(KEY, 5) == b"first"
    files.place(KEY)
    assert files.read(KEY, 6) == b"second"
    files.displace(KEY)
    assert files.read(KEY, 5) == b"first"
    files.stage(KEY, b"third")
    files.unstage(KEY)
    assert everything(files) == [f"{KEY}.png"]
    assert files.read(KEY, 5) == b"first"
    files.stage(OTHER, b"new")
    files.place(OTHER)
    files.displace(OTHER)
    assert everything(files) == [f"{KEY}.png"]


def test_what_a_kill_left_aside_is_not_taken_for_the_former(files: PictureFiles):
    write(files, KEY, b"first")
    files.stage(KEY, b"second")
    files.place(KEY)  # killed here: the one before stays aside
    files.stage(KEY, b"third")
    files.place(KEY)
    files.displace(KEY)
    assert files.read(KEY, 6) == b"second"
    assert everything(files) == [f"{KEY}.png"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failed_write_leaves_what_was_there(
    files: PictureFiles, monkeypatch: pytest.MonkeyPatch, step: str
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(files, KEY, b"first")
    monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
    with pytest.raises(OSError, match="No space"):
        write(files, KEY, b"second")
    assert everything(files) == [f"{KEY}.png"]
    assert files.read(KEY, 5) == b"first"


LIMITED = """
import pathlib, resource, sys
from sdq.server.library.files import PictureFiles
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
files = PictureFiles(pathlib.Path(sys.argv[1]))
try:
    files.stage(sys.argv[2], b"x" * 200_000)
except OSError as error:
    print(error.errno)
"""


def test_the_system_cuts_a_write_and_no_half_file_stays(files: PictureFiles):
    """A real refusal by the kernel in the middle of a file, not one that we made up."""
    command = [sys.executable, "-c", LIMITED, str(files.directory), KEY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)
    assert everything(files) == []


def test_removing_passes_over_what_is_gone(files: PictureFiles):
    write(files, KEY, b"picture")
    files.hide([KEY, OTHER])
    assert files.read(KEY, 7) is None
    files.unhide([KEY, OTHER])
    assert files.read(KEY, 7) == b"picture"
    files.hide([KEY, OTHER])
    files.remove([KEY, OTHER])
    assert everything(files) == []


def test_sweeping_takes_only_what_is_ours_and_unknown(files: PictureFiles):
    write(files, KEY, b"known")
    write(files, OTHER, b"unknown")
    folder = files.directory / "ab"
    (folder / f"{KEY}.png.tmp").write_bytes(b"half")
    (folder / f"{KEY}.png.old").write_bytes(b"former")
    (folder / f"{OTHER}.png.gone").write_bytes(b"removed")
    (folder / "notes.txt").write_text("of the operator")
    gone = "ab" + "2" * 62
    assert files.sweep("ab", {KEY, gone}) == (3, {gone}, [OTHER])
    assert everything(files) == sorted([f"{KEY}.png", f"{OTHER}.png", "notes.txt"])
    assert files.sweep("cd", set()) == (0, set(), [])
    assert files.sweep("cd", {"cd" + "0" * 62}) == (0, {"cd" + "0" * 62}, [])
