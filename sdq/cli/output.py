"""What the command line says, and where: data on standard output, all else on standard error."""

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from sdq.errors import OutputError, SdqError

_JOINERS = "\u200c\u200d"  # part of words in Persian and in Indian scripts, and of emoji


def plain(text: str) -> str:
    """Text from outside, as it may be shown on a terminal, on one line.

    Control characters (ESC, line ends, C1), those that turn the direction of writing and
    lone surrogates become visible escapes. The result never goes through Rich's markup:
    Rich gets it as a `Text`.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else _visible(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    if letter.isprintable() or letter in _JOINERS:
        return True
    return unicodedata.category(letter) == "Zs"  # a no-break space and its kin


def _visible(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def tell(text: str) -> None:
    """A line for people, on standard error. A terminal that is gone does not matter."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def tell_error(error: SdqError, *, about: str = "") -> None:
    """The two lines of an error: what went wrong, what to do next."""
    where = f"{plain(about)}: " if about else ""
    tell(f"error: {where}{plain(error.message)}")
    if error.hint:
        tell(f"  hint: {plain(error.hint)}")


def print_data(line: str) -> None:
    """A line of data, on standard output. On a terminal it is made harmless."""
    text = plain(line) if sys.stdout.isatty() else line
    write_data(os.fsencode(text) + b"\n")


def write_data(data: bytes) -> None:
    """Bytes, on standard output. Raises `OutputError`, and `BrokenPipeError` when its reader is
    gone, which is no failure to speak of."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write standard output: {error.strerror or error}",
            hint="make room, or send it somewhere else",
        ) from error


def print_json(value: object) -> None:
    """One object, one line; ASCII, so that nothing in it can be taken for a command."""
    import json

    print_data(json.dumps(value))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns for people; the last one is cut at the edge of a terminal."""
    for line in table_lines(titles, rows):
        print_data(line)


def table_lines(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of `print_table`."""
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [max(map(columns_of, column)) for column in zip(titles, *cells, strict=True)]
    most = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
    lines = []
    for row in [list(titles), *cells]:
        padded = [
            cell + " " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        line = "  ".join(padded).rstrip()
        lines.append(line if most is None else cut(line, most))
    return lines


def columns_of(text: str) -> int:
    """How wide a terminal draws a text: two columns for a letter of Chinese or an emoji, none
    for an accent of its own."""
    return len(text) if text.isascii() else sum(map(_columns_of_letter, text))


def cut(text: str, columns: int) -> str:
    """As much of a line as fits, with an ellipsis where something is missing."""
    if columns_of(text) <= columns:
        return text
    used = 0
    for place, letter in enumerate(text):
        used += _columns_of_letter(letter)
        if used > columns - 1:
            return text[:place] + "…"
    return text


def _columns_of_letter(letter: str) -> int:
    if unicodedata.east_asian_width(letter) in "WF":
        return 2
    return 0 if unicodedata.category(letter) in ("Mn", "Me", "Cf") else 1


def held_up_by(ahead: int | None, note: str) -> str:
    """Why a job waits, other than that so many go before it: no worker, a model that loads.

    Whoever hears only of a place in the queue takes it for moving.
    """
    return "" if note == f"{ahead} ahead" else note


def as_bytes(size_bytes: float) -> str:
    """A size for people: ``1.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def as_pictures(count: int) -> str:
    """``1 picture``, ``2 pictures``."""
    return "1 picture" if count == 1 else f"{count} pictures"


def as_duration(seconds: float) -> str:
    """A time for people: ``0.6 s``, ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


class Sink:
    """Where the pictures of `sdq generate` are reported.

    ``hidden`` takes the progress off the terminal while a line is written.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.hidden: Callable[[], AbstractContextManager[object]] = nullcontext

    def say(self, text: str) -> None:
        """A line for people, unless they asked for silence."""
        if not self.quiet:
            with self.hidden():
                tell(text)

    def error(self, error: SdqError, *, about: str = "") -> None:
        with self.hidden():
            tell_error(error, about=about)

    def path(self, path: str, details: str) -> None:
        """A file that was written. People who see both streams are told once."""
        one_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        if self.quiet or not one_terminal:
            with self.hidden():
                print_data(path)
        self.say(f"{plain(path)}  {details}")

    def record(self, value: object) -> None:
        """One object of ``--json``."""
        with self.hidden():
            print_json(value)
