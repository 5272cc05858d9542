"""Wildcard files."""

from pathlib import Path

import pytest

from sdq.cli.wildcards import WildcardFolder
from sdq.errors import UsageError


def test_lines_without_comments_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals" / "cats.txt").write_text("\ufeff# cats\ntabby \n\n Küken\n", "utf-8")
    assert WildcardFolder(str(tmp_path))("animals/cats") == ("tabby", "Küken")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "colours.txt").write_text("red\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "latin.txt").write_bytes(b"\xe4\n")
    (tmp_path.parent / "secret.txt").write_text("x\n")
    folder = WildcardFolder(str(tmp_path))
    with pytest.raises(UsageError, match=r"no wildcard file colour\.txt") as refused:
        folder("colour")
    assert refused.value.hint == "did you mean __colours__?"
    with pytest.raises(UsageError, match="holds 0 lines"):
        folder("empty")
    with pytest.raises(UsageError, match="cannot be read"):
        folder("latin")
    with pytest.raises(UsageError, match="no wildcard file"):
        folder("../secret")
    with pytest.raises(UsageError, match="is no folder"):
        WildcardFolder(str(tmp_path / "nowhere"))
