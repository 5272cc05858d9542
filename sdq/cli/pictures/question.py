"""The one question that is put to a terminal: can it draw sixels?

All terminals answer a request for their *primary device attributes* (``CSI c``); a 4 among them
means sixel. Nobody is asked whose answer could come too late, for then it would be typed into the
shell: not over ssh, not in the background. What was typed in the meantime is lost to the shell.
"""

import os
import re
import select
import termios
import time
from collections.abc import Mapping

TIMEOUT_SECONDS = 0.3

_ASK = b"\x1b[c"
_ANSWER = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL = b"4"
_MAX_BYTES = 1_024
_FAR = ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")


def draws_sixels(environment: Mapping[str, str], path: str = "/dev/tty") -> bool:
    """Asks the terminal of this process, at most `TIMEOUT_SECONDS`. Its mode is put back whatever
    happens; nobody there, or no answer, is a no."""
    if any(environment.get(name) for name in _FAR):
        return False
    try:
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False
        return _SIXEL in _attributes(terminal).split(b";")
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)


def _attributes(terminal: int) -> bytes:
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~(termios.ICANON | termios.ECHO)  # Ctrl-C stays what it is
    quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
    try:
        termios.tcsetattr(terminal, termios.TCSADRAIN, quiet)
        os.write(terminal, _ASK)
        return _answer(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _answer(terminal: int) -> bytes:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    heard = b""
    while len(heard) < _MAX_BYTES and (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([terminal], [], [], left)
        if not ready or not (piece := os.read(terminal, _MAX_BYTES)):
            break
        heard += piece
        if found := _ANSWER.search(heard):
            return found[1]
    return b""
