"""Text from outside, sizes, times, tables."""

import pytest

from sdq.cli.output import (
    as_bytes,
    as_duration,
    columns_of,
    cut,
    held_up_by,
    plain,
    print_table,
    table_lines,
    tell_error,
)
from sdq.errors import SdqError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red circle", "a red circle"),
        ("Crème 猫 👩\u200d🎨", "Crème 猫 👩\u200d🎨"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("10\u00a0km", "10\u00a0km"),
        ("[/nope][bold]", "[/nope][bold]"),
    ],
)
def test_nothing_from_outside_is_obeyed(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_an_error_has_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tell_error(SdqError("no\x1b[31m", hint="try\nagain"), about="line 3")
    assert capsys.readouterr().err == "error: line 3: no\\x1b[31m\n  hint: try\\nagain\n"


def test_sizes_and_times() -> None:
    assert [as_bytes(size) for size in (0, 1023, 1536, 5 * 1024**3)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [as_duration(seconds) for seconds in (0.61, 12, 300, 10_800, 260_000)] == [
        "0.6 s",
        "12 s",
        "5 min",
        "3 h",
        "3 d",
    ]


def test_a_table_is_aligned(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_table(("NAME", "N"), [("long name", 1), ("x\x1b", 22)])
    assert capfdbinary.readouterr().out == b"NAME       N\nlong name  1\nx\\x1b      22\n"


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("紅い円", 6), ("🚀", 2), ("e\u0301", 1), ("👩\u200d🎨", 4), ("", 0)],
)
def test_how_wide_a_terminal_draws_it(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "left"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("紅い円", 6, "紅い円"),
        ("紅い円", 5, "紅い…"),
        ("紅い円", 4, "紅…"),
        ("紅", 1, "…"),
    ],
)
def test_a_line_is_cut_where_the_terminal_ends(text: str, columns: int, left: str) -> None:
    assert cut(text, columns) == left


def test_wide_letters_do_not_push_the_next_column() -> None:
    _, wide, narrow = table_lines(("NAME", "N"), [("紅い円", 1), ("circle", 2)])
    assert columns_of(wide) == columns_of(narrow)


@pytest.mark.parametrize(
    ("ahead", "note", "reason"),
    [
        (3, "3 ahead", ""),
        (0, "", ""),
        (None, "", ""),
        (2, "no worker online holds 'shapes'", "no worker online holds 'shapes'"),
        (None, "more than 500 ahead", "more than 500 ahead"),
    ],
)
def test_a_place_in_the_queue_is_no_reason(ahead: int | None, note: str, reason: str) -> None:
    assert held_up_by(ahead, note) == reason
