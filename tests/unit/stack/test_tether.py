"""A tethered program runs as itself and dies with its parent."""

import signal
import subprocess
import sys

import psutil
import pytest

from sdq.stack.tether import tethered

PARENT = """
import subprocess, sys, time
from sdq.stack.tether import tethered
child = subprocess.Popen(tethered([sys.executable, "-c", "import time; time.sleep(60)"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_becomes_the_program_with_its_arguments_and_exit_code() -> None:
    argv = [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a b", "--c"]

    done = subprocess.run(tethered(argv), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (7, "['a b', '--c']\n", "")


def test_a_missing_program_is_told_in_a_line() -> None:
    done = subprocess.run(tethered(["/no/such"]), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == "cannot run /no/such: No such file or directory\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
def test_dies_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()

        parent.send_signal(signal.SIGKILL)

        gone, alive = psutil.wait_procs([child], timeout=5)
    assert (gone, alive) == ([child], [])


def test_does_not_begin_when_the_parent_is_gone_already() -> None:
    argv = tethered(["true"])
    argv[argv.index("true") - 1] = "1"

    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "parent died" in done.stderr
