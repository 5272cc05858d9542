"""Which terminal is drawn on how."""

import os
import pty
import select
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sdq.cli.pictures import question
from sdq.cli.pictures.detection import Means, Way, means_of
from sdq.cli.pictures.tmux import Around, around

XTERM = {"TERM": "xterm-256color"}
BLOCKS = Means(Way.BLOCKS)
CELLS = Means(Way.KITTY, has_cells=True)
THROUGH = Means(Way.KITTY, has_cells=True, in_tmux=True)


def means(
    terminal: Any, environment: Mapping[str, str], setting: str = "auto", tmux: Any = None
) -> Means | None:
    def ask() -> Around:
        assert tmux is not None, "tmux was asked outside of it"
        return Around(*tmux)

    return means_of(terminal.stream, setting, environment, asks=False, ask_tmux=ask)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (XTERM, BLOCKS),
        ({"TERM": "xterm"}, BLOCKS),
        ({"TERM": "linux"}, BLOCKS),
        ({"TERM": "dumb"}, None),
        ({}, None),
        (XTERM | {"NO_COLOR": ""}, BLOCKS),
        (XTERM | {"NO_COLOR": "1"}, None),
        ({"TERM": "xterm-kitty"}, CELLS),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, None),
        (XTERM | {"KITTY_WINDOW_ID": "3"}, CELLS),
        ({"TERM": "xterm-ghostty"}, CELLS),
        (XTERM | {"TERM_PROGRAM": "ghostty"}, CELLS),
        (XTERM | {"TERM_PROGRAM": "iTerm.app"}, Means(Way.ITERM2)),
        (XTERM | {"TERM_PROGRAM": "WezTerm"}, Means(Way.ITERM2)),
        (XTERM | {"WEZTERM_PANE": "0", "KITTY_WINDOW_ID": "1"}, Means(Way.ITERM2)),
        (XTERM | {"LC_TERMINAL": "iTerm2"}, Means(Way.ITERM2)),
        (XTERM | {"KONSOLE_VERSION": "230804"}, Means(Way.KITTY)),
        (XTERM | {"KONSOLE_VERSION": "210400"}, BLOCKS),
        ({"TERM": "foot"}, Means(Way.SIXEL)),
        ({"TERM": "screen", "STY": "1", "KITTY_WINDOW_ID": "1"}, BLOCKS),
        ({"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2"}, BLOCKS),  # ssh out of a tmux
        (XTERM | {"ZELLIJ": "0", "KITTY_WINDOW_ID": "1"}, BLOCKS),
    ],
)
def test_by_what_the_environment_says(
    terminal: Any, environment: dict[str, str], expected: Means | None
) -> None:
    assert means(terminal, environment) == expected


@pytest.mark.parametrize(
    ("tmux", "expected"),
    [
        ((True, "xterm-kitty kitty(0.36.4)"), THROUGH),
        ((True, "xterm-256color ghostty 1.1.3"), THROUGH),
        ((False, "xterm-kitty kitty(0.36.4)"), BLOCKS),
        ((True, "xterm-256color iterm2 3.5"), BLOCKS),
        ((False, ""), BLOCKS),
    ],
)
def test_within_tmux(terminal: Any, tmux: tuple[bool, str], expected: Means) -> None:
    stale = {"TERM": "tmux-256color", "TMUX": "/tmp/x,1,0", "KITTY_WINDOW_ID": "1"}
    assert means(terminal, stale, tmux=tmux) == expected


@pytest.mark.parametrize(
    ("setting", "more", "expected"),
    [
        ("off", {}, None),
        ("blocks", {"KITTY_WINDOW_ID": "1"}, BLOCKS),
        ("kitty", {}, CELLS),
        ("kitty", {"KONSOLE_VERSION": "230804"}, Means(Way.KITTY)),
        ("iterm2", {}, Means(Way.ITERM2)),
        ("sixel", {}, Means(Way.SIXEL)),
        ("iterm2", {"TMUX": "x"}, BLOCKS),
        ("kitty", {"STY": "x"}, BLOCKS),
    ],
)
def test_what_a_person_has_set(
    terminal: Any, setting: str, more: dict[str, str], expected: Means | None
) -> None:
    assert means(terminal, XTERM | more, setting) == expected


def test_kitty_was_set_within_tmux(terminal: Any) -> None:
    inside = XTERM | {"TMUX": "x"}
    assert means(terminal, inside, "kitty", (True, "")) == THROUGH
    assert means(terminal, inside, "kitty", (False, "kitty")) == BLOCKS


def test_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert means_of(file, "kitty", XTERM) is None


def test_tmux_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert around() == Around(False, "")


ASKING = """
import os, sys, termios
from sdq.cli.pictures.question import draws_sixels
before = termios.tcgetattr(0)
print(draws_sixels({}), termios.tcgetattr(0) == before, flush=True)
print("typed:", sys.stdin.readline().strip(), flush=True)
"""


def asked(answer: bytes, then: bytes) -> str:
    """What a program sees that asks a terminal which answers so."""
    pid, controller = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", ASKING])
    heard = b""
    deadline = time.monotonic() + 20
    was_asked = had_line = False
    while time.monotonic() < deadline:
        if not select.select([controller], [], [], 1)[0]:
            continue
        try:
            piece = os.read(controller, 4_096)
        except OSError:
            break
        if not piece:
            break
        heard += piece
        if b"\x1b[c" in heard and not was_asked:
            was_asked = True
            os.write(controller, answer)
        if (b"True\r\n" in heard or b"False\r\n" in heard) and not had_line:
            had_line = True
            os.write(controller, then)
    os.close(controller)
    os.waitpid(pid, 0)
    return heard.decode()


@pytest.mark.parametrize(
    ("answer", "draws"),
    [
        (b"\x1b[?62;4;22c", True),
        (b"\x1b[?64;1;2;6;22c", False),
        (b"\x1b[?14;44c", False),
        (b"", False),
    ],
)
def test_a_terminal_is_asked_and_left_as_it_was(answer: bytes, draws: bool) -> None:
    said = asked(answer, b"hello\n")
    assert f"{draws} True" in said
    assert "typed: hello" in said
    assert "62;4" not in said  # the answer was not echoed


def test_nobody_far_away_is_asked() -> None:
    assert not question.draws_sixels({"SSH_TTY": "/dev/pts/3"}, path="/nonexistent")


def test_a_terminal_that_is_not_ours(terminal: Any) -> None:
    before = termios.tcgetattr(terminal.stream)
    assert not question.draws_sixels({}, path=terminal.path)
    assert termios.tcgetattr(terminal.stream) == before
