"""Names of output files."""

import pytest

from sdq.cli.patterns import Pattern, escaped, model_part, slug_of
from sdq.errors import UsageError

VALUES: dict[str, str | int] = {
    "n": 7,
    "index": 6,
    "seed": 42,
    "slug": "a-red-circle",
    "key": "0123456789abcdef" * 4,
    "model": "shapes",
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("out.png", "out.png"),
        ("{n:03}-{seed}-{slug}.png", "007-42-a-red-circle.png"),
        ("{n}{index}.png", "76.png"),
        ("{key:8}.png", "01234567.png"),
        ("{model}/{slug:5}.webp", "shapes/a-red.webp"),
        ("{{n}}-{n}.png", "{n}-7.png"),
        ("a:b.png", "a:b.png"),
    ],
)
def test_fields_are_filled(pattern: str, expected: str) -> None:
    assert Pattern(pattern).fill(VALUES) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "{}.png",
        "{name}.png",
        "{n.png",
        "n}.png",
        "{n:x}.png",
        "{n:03d}.png",
        "{n!r}.png",
        "{n:999}.png",
        "{slug.__class__}.png",
        "{seed:>9}.png",
    ],
)
def test_what_is_no_field_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        Pattern(pattern)


def test_an_escaped_path_means_itself() -> None:
    assert Pattern(escaped("odd{n}folder/")).fill({}) == "odd{n}folder/"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("{key}.png", True), ("{key:8}.png", True), ("{key:7}.png", False), ("{n}.png", False)],
)
def test_which_names_say_what_is_in_the_file(pattern: str, expected: bool) -> None:
    assert Pattern(pattern).is_addressed_by_content is expected


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("A red circle, on blue!", "a-red-circle-on-blue"),
        ("../../etc/passwd", "etc-passwd"),
        ("...", "picture"),
        ("", "picture"),
        ("猫", "picture"),
        ("Crème brûlée", "creme-brulee"),
        ("\x1b[31mred\x00\n", "31mred"),
        ("x" * 500, "x" * 60),
        ("x" * 59 + " yy", "x" * 59),
    ],
)
def test_slugs_are_safe(prompt: str, slug: str) -> None:
    assert slug_of(prompt) == slug


def test_the_name_of_a_model_cannot_leave_the_folder() -> None:
    assert model_part("../../x") == "x"
    assert model_part("..") == "model"
    assert model_part("sd-1.5") == "sd-1.5"
