"""Becomes another program, one that dies with its parent.

``python tether.py PARENT_PID PROGRAM [ARGUMENT...]`` asks Linux for a SIGKILL on the parent's
death and then replaces itself by the program, so the process id stays. A program in between
costs 20 ms and, unlike Popen's ``preexec_fn``, runs no Python between fork and exec, which is
not safe once the parent has threads.

Linux sends the signal when the *thread* that started the child ends: start children from the
main thread. Other systems have no such call; there a `kill -9` of the parent leaves children.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` as a child that cannot outlive this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _main(arguments: list[str]) -> None:
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent died before its child began")
    try:
        os.execvp(program[0], program)  # noqa: S606 - replacing this process is the purpose
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    _main(sys.argv[1:])
