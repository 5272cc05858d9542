"""Files replaced whole; locks with one holder, who says who it is."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sdq.storage import LockFile, LockHeld, nearest_there, replace_file

HOLDER = """
import sys, time
from pathlib import Path
from sdq.storage import LockFile
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
        assert held.value.pid == str(holder.pid)

        holder.send_signal(signal.SIGKILL)
    with LockFile(path, patience_seconds=1) as lock:
        lock.write(address="here")
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(LockHeld) as held, LockFile(path):
            pass
        assert held.value.holder == {"pid": os.getpid(), "address": "here"}
    with LockFile(path):
        pass  # free again
    assert path.read_bytes() == b""


@pytest.mark.parametrize("written", [b"", b"123", b"\xff\x00"])
def test_a_holder_that_says_nothing_sensible_is_unknown(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "lock"
    with LockFile(path):
        path.write_bytes(written)
        with pytest.raises(LockHeld) as held:
            LockFile(path).acquire()
    assert held.value.pid == "unknown"


def test_patience_waits_for_the_holder(tmp_path: Path) -> None:
    first = LockFile(tmp_path / "lock").acquire()
    timer = threading.Timer(0.2, first.release)
    timer.start()
    with LockFile(tmp_path / "lock", patience_seconds=30):
        assert not timer.is_alive()
    timer.join()


def test_taking_and_letting_go_twice_is_fine(tmp_path: Path) -> None:
    lock = LockFile(tmp_path / "lock").acquire()
    with lock:
        pass
    lock.release()
    LockFile(tmp_path / "lock").acquire().release()


def test_an_unwritable_place_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"), LockFile(tmp_path / "file" / "lock"):
        pass


def test_on_a_full_disk_a_lock_is_held_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")

    with LockFile(tmp_path / "lock"), pytest.raises(LockHeld) as held:
        LockFile(tmp_path / "lock").acquire()
    assert held.value.pid == "unknown"


def test_a_file_is_replaced_whole_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    replace_file(path, b"first")
    path.chmod(0o644)
    replace_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    replace_file(path, b"for all", mode=0o644)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


LIMITED = """
import pathlib, resource, sys
from sdq.storage import replace_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
try:
    replace_file(pathlib.Path(sys.argv[1]), b"x" * 5_000)
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_leaves_the_old_one_and_nothing_half(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    replace_file(path, b"old")
    command = [sys.executable, "-c", LIMITED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "File too large"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_nearest_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    assert nearest_there(tmp_path / "a" / "b") == tmp_path
    assert nearest_there(tmp_path / "closed") == tmp_path / "closed"
    stat = os.stat

    def refuses(path: object, *args: object, **named: object) -> os.stat_result:
        if "closed/" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **named)

    monkeypatch.setattr(os, "stat", refuses)
    assert nearest_there(tmp_path / "closed" / "x" / "y") == tmp_path / "closed"
