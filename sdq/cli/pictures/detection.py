"""Which way of drawing the terminal behind a stream understands.

What terminals say of themselves in the environment comes first, in the order of how sure it is.
"""

import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import IO, NamedTuple

from sdq.cli.pictures.blocks import has_blocks
from sdq.cli.pictures.question import draws_sixels
from sdq.cli.pictures.tmux import Around, around


class Way(StrEnum):
    """How pictures get onto a terminal: values of the setting ``client.pictures`` too."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    BLOCKS = "blocks"


class Means(NamedTuple):
    """``has_cells``: a kitty that knows placeholders; ``in_tmux``: sequences need an envelope."""

    way: Way
    has_cells: bool = False
    in_tmux: bool = False


_BLOCKS = Means(Way.BLOCKS)
_NO_TERMINALS = ("", "dumb", "unknown")
_MULTIPLEXERS = ("screen", "tmux")

_ITERM2_PROGRAMS = {"iTerm.app", "WezTerm", "mintty", "WarpTerminal", "rio", "Tabby"}
_SIXEL_TERMS = ("foot", "mlterm", "yaft", "contour")
"""As TERM begins."""


def means_of(
    stream: IO[str],
    setting: str = "auto",
    environment: Mapping[str, str] = os.environ,
    *,
    asks: bool = True,
    ask_tmux: Callable[[], Around] = around,
) -> Means | None:
    """How to draw there; ``None``: not at all.

    ``setting``: ``auto``, ``off`` or a `Way`. ``asks``: whether the terminal itself may be asked,
    when its environment says nothing (some milliseconds; `sdq.cli.pictures.question`). No pictures
    where there is no terminal, on a dumb one, and with ``NO_COLOR``.
    """
    term = environment.get("TERM", "")
    if setting == "off" or not stream.isatty() or term in _NO_TERMINALS:
        return None
    if environment.get("NO_COLOR"):
        return None
    means = _wanted(setting, environment, asks, ask_tmux)
    if means.way is Way.BLOCKS and not has_blocks(getattr(stream, "encoding", None)):
        return None
    return means


def _wanted(
    setting: str, environment: Mapping[str, str], asks: bool, ask_tmux: Callable[[], Around]
) -> Means:
    multiplexed = _is_multiplexed(environment)
    if setting == "auto":
        if environment.get("TMUX"):
            return _within_tmux(environment, asks, ask_tmux())
        if not multiplexed and (known := _by_environment(environment)):
            return known
        return Means(Way.SIXEL) if asks and draws_sixels(environment) else _BLOCKS
    way = Way(setting)
    if way is Way.KITTY and environment.get("TMUX"):
        return _in_passthrough() if ask_tmux().lets_through else _BLOCKS
    if way in (Way.KITTY, Way.ITERM2) and multiplexed:
        return _BLOCKS  # what lies between would take the picture for text, or lose it
    return Means(way, has_cells=way is Way.KITTY and not environment.get("KONSOLE_VERSION"))


def _is_multiplexed(environment: Mapping[str, str]) -> bool:
    """Whether another program draws the terminal, and knows letters only."""
    inside = any(environment.get(name) for name in ("TMUX", "STY", "ZELLIJ"))
    return inside or environment.get("TERM", "").startswith(_MULTIPLEXERS)


def _within_tmux(environment: Mapping[str, str], asks: bool, outside: Around) -> Means:
    """The environment is that of the terminal which tmux was started in, maybe days ago."""
    if outside.lets_through and outside.is_kitty:
        return _in_passthrough()
    return Means(Way.SIXEL) if asks and draws_sixels(environment) else _BLOCKS


def _in_passthrough() -> Means:
    return Means(Way.KITTY, has_cells=True, in_tmux=True)


def _by_environment(environment: Mapping[str, str]) -> Means | None:
    """What is known of a terminal without asking it."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    names = set(environment)
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return Means(Way.KITTY, has_cells=True)
    if program in _ITERM2_PROGRAMS or names & {"WEZTERM_PANE", "WEZTERM_EXECUTABLE"}:
        return Means(Way.ITERM2)
    if environment.get("LC_TERMINAL") == "iTerm2":  # ssh carries it to the other side
        return Means(Way.ITERM2)
    if term.startswith(_SIXEL_TERMS):
        return Means(Way.SIXEL)
    if names & {"KITTY_WINDOW_ID", "GHOSTTY_RESOURCES_DIR"}:  # a program that it has started
        return Means(Way.KITTY, has_cells=True)
    if environment.get("KONSOLE_VERSION", "") >= "220400":
        return Means(Way.KITTY)  # at the cursor only
    return None
