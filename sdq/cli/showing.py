"""What a person wants to see and hear of pictures that are waited for, beside lines of text."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from sdq.cli.output import plain
from sdq.config import ClientSettings

if TYPE_CHECKING:
    from rich.console import Console

_NO_TITLES = ("", "dumb", "unknown", "linux")
"""Terminals without a window, as TERM."""

_MAX_TITLE = 80
_BELL = "\a"
_KEEP_TITLE, _FORMER_TITLE = "\x1b[22;0t", "\x1b[23;0t"
"""xterm's stack of titles; terminals without one keep the last."""


class Showing(msgspec.Struct, frozen=True):
    """``preview``: pictures while they are drawn; ``finished``: each that is done; ``bell``: once
    at the end; ``title``: how far it is, as the window's title; ``pictures``: how they are drawn,
    ``client.pictures``."""

    preview: bool = False
    finished: bool = False
    bell: bool = False
    title: bool = False
    pictures: str = "auto"


def showing_of(
    settings: ClientSettings, *, preview: bool, show: bool, bell: bool, quiet: bool
) -> Showing:
    """What flags and settings say together. Who asks for silence sees nothing, and hears the bell
    only if asked for by its flag."""
    return Showing(
        preview=preview,
        finished=show and not quiet,
        bell=bell or (settings.bell and not quiet),
        title=settings.title and not quiet,
        pictures=settings.pictures,
    )


class Attention:
    """Shows finished pictures, sets the title, rings the bell: on standard error, and only where
    that is a terminal."""

    def __init__(self, showing: Showing) -> None:
        from os import environ

        is_terminal = sys.stderr.isatty() and environ.get("TERM", "") not in ("", "dumb")
        self._showing = showing
        self._rings = showing.bell and is_terminal
        self._titles = showing.title and is_terminal and environ["TERM"] not in _NO_TITLES
        # Whose pictures go into a pipe does not look at them here.
        self._shows = showing.finished and is_terminal and sys.stdout.isatty()
        self._title = ""
        self._console: Console | None = None

    @property
    def shows(self) -> bool:
        """Whether finished pictures are shown, as far as that can be known."""
        return self._shows

    def show(self, image: bytes) -> None:
        """A finished picture, below the cursor."""
        if not self._shows:
            return
        from sdq.cli.pictures.show import show

        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True)
        show(image, self._console, setting=self._showing.pictures)

    def title(self, text: str) -> None:
        """How far it is, for the title of the window."""
        text = f"sdq: {plain(text)[:_MAX_TITLE]}"
        if self._titles and text != self._title:
            keep = "" if self._title else _KEEP_TITLE
            self._title = text
            _write(f"{keep}\x1b]0;{text}\x07")

    def close(self) -> None:
        """The former title, and the bell. Again does nothing."""
        said = _FORMER_TITLE if self._title else ""
        said += _BELL if self._rings else ""
        self._title, self._rings, self._titles = "", False, False
        if said:
            _write(said)


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # the terminal is gone
        sys.stderr.write(text)
        sys.stderr.flush()
