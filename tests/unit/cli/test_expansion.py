"""The flags about templates."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdq.cli.expansion import HINT, Expansion, expansion_of
from sdq.errors import UsageError


def test_without_the_flag_nothing_is_expanded_and_a_hint_is_kept() -> None:
    expansion = expansion_of(False, None, None, None, 3)
    assert list(expansion.of("{a|b}")) == ["{a|b}"]
    expansion.look_at("a { brace")
    assert expansion.hint == ""
    expansion.look_at("{a|b}")
    assert expansion.hint == HINT


def test_the_flags(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\ntwo\n")
    assert list(expansion_of(True, None, None, None, None).of("{a|b} __x__")) == [
        "a __x__",
        "b __x__",
    ]
    with_files = expansion_of(True, None, None, str(tmp_path), None)
    assert (with_files.count("{a|b} __x__"), len(list(with_files.of("{a|b} __x__")))) == (4, 4)
    some = expansion_of(True, 3, None, None, 5)
    assert (some.count("{a|b|c}{a|b|c}"), some.count("{a|b}"), some.seed) == (3, 2, 5)
    with pytest.raises(UsageError, match="the limit is 3"):
        list(expansion_of(True, None, 3, None, None).of("{a|b}{a|b}"))
    with pytest.raises(UsageError, match="--max is about templates"):
        expansion_of(False, None, 3, None, None)
    with pytest.raises(UsageError, match="1000"):
        expansion_of(True, 2_000, None, None, None)
    assert Expansion().count("{a|b}") == 1


def test_a_wildcard_is_parsed_once_for_all_prompts() -> None:
    looks = 0

    class Lines(tuple[str, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    lines = Lines(("red", "{light|dark} blue"))
    expansion = Expansion(True, wildcards=lambda name: lines)
    for what in ("circle", "square"):
        prompts = [f"red {what}", f"light blue {what}", f"dark blue {what}"]
        assert list(expansion.of(f"__colour__ {what}")) == prompts
        assert expansion.count(f"__colour__ {what}") == 3
    assert looks == 1
    assert list(Expansion(True, wildcards=lambda name: ("other",)).of("__colour__")) == ["other"]
