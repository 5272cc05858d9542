"""The lock file: one holder, who says who it is; a dead holder does not count."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdq.errors import StackError
from sdq.stack.lock import LockFile, LockHeld

HOLDER = """
import sys, time
from pathlib import Path
from sdq.stack.lock import LockFile
with LockFile(Path(sys.argv[1])) as lock:
    lock.write(address="127.0.0.1:1")
    print("held", flush=True)
    time.sleep(60)
"""


def test_names_the_holder_and_frees_itself_when_that_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    argv = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"

        with pytest.raises(LockHeld) as held, LockFile(path, patience_seconds=0.1):
            pass
        assert held.value.holder == {"pid": holder.pid, "address": "127.0.0.1:1"}

        holder.send_signal(signal.SIGKILL)
    with LockFile(path) as lock:
        lock.write(address="here")
        with pytest.raises(LockHeld) as held, LockFile(path, patience_seconds=0):
            pass
        assert held.value.holder == {"pid": os.getpid(), "address": "here"}
    with LockFile(path):
        pass  # free again


def test_an_unwritable_place_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StackError, match="file/lock"), LockFile(tmp_path / "file" / "lock"):
        pass


def test_a_full_disk_is_told_and_nothing_is_held(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")

    with pytest.raises(StackError, match="lock"), LockFile(tmp_path / "lock"):
        pass
    (tmp_path / "lock").unlink()
    with LockFile(tmp_path / "lock", patience_seconds=0):
        pass
