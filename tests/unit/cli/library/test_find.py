"""``sdq find``: words, filters and pages as a person and a script see them."""

import json
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sdq.cli.filters import moment_of
from sdq.errors import UsageError
from sdq.protocol.library_messages import FindPictures


def keys_of(out: str) -> list[str]:
    return out.split()


def test_words_are_found_newest_first(shop: Any, ask: Any) -> None:
    code, out, _ = ask("find", "RED")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("KEY ")
    assert [line.split()[0] for line in lines[1:]] == [shop.keys[2][:12], shop.keys[0][:12]]
    assert keys_of(ask("find", "cir*", "red", "--keys")[1]) == [shop.keys[0]]
    assert keys_of(ask("find", '"red square"', "--keys")[1]) == [shop.keys[2]]
    assert ask("find", "*", "--keys") == (0, "", "")


def test_the_same_as_part_of_the_library(shop: Any, ask: Any) -> None:
    assert ask("library", "find", "red") == ask("find", "red")
    assert len(ask("library", "list", "--limit", "3")[1].splitlines()) == 4


def test_filters_reach_the_server(shop: Any, ask: Any) -> None:
    assert keys_of(ask("find", "--seed", "1", "--keys")[1]) == [shop.keys[1]]
    assert len(keys_of(ask("find", "--model", "shapes", "--size", "64x64", "--keys")[1])) == 4
    assert ask("find", "--lora", "neon", "--keys")[1] == ""
    assert ask("find", "--negative", "blurry", "--keys")[1] == ""
    assert ask("find", "--since", "3d", "--keys")[1] == ""  # drawn in 1970
    assert len(keys_of(ask("find", "--until", "1970-02-01", "--keys")[1])) == 4
    asked = shop.heard[-1]
    assert isinstance(asked, FindPictures)
    assert asked.until == datetime(1970, 2, 1).timestamp()  # noqa: DTZ001 - local time is meant


def test_pages_of_a_script(shop: Any, ask: Any) -> None:
    seen, before = [], []
    while out := ask("find", "--limit", "3", "--json", *before)[1]:
        page = [json.loads(line) for line in out.splitlines()]
        seen += [picture["key"] for picture in page]
        before = ["--before", str(page[-1]["number"])]
    assert seen == shop.keys[::-1]


def test_all_of_them_come_page_by_page(
    shop: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdq.cli.find._PAGE_PICTURES", 3)
    monkeypatch.setattr("sdq.client.questions.PAGE_PICTURES", 3)
    lines = ask("find", "--all")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["KEY", *(key[:12] for key in shop.keys[::-1])]
    asked = [message for message in shop.heard if isinstance(message, FindPictures)]
    assert len(asked) == 2


def test_a_damaged_row_hides_no_older_picture(
    shop: Any, ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdq.client.questions.PAGE_PICTURES", 3)
    with closing(sqlite3.connect(tmp_path / "server" / "sdq.sqlite3")) as rows, rows:
        rows.execute("UPDATE pictures SET spec = 'torn' WHERE key = ?", (shop.keys[2],))
    whole = [shop.keys[3], shop.keys[1], shop.keys[0]]
    assert keys_of(ask("find", "--all", "--keys")[1]) == whole
    assert keys_of(ask("find", "--limit", "3", "--keys")[1]) == whole
    said = json.loads(ask("gallery", "-o", "g.html", "--json")[1])
    assert said["pictures"] == 3


def test_nothing_from_outside_is_obeyed(shop: Any, ask: Any) -> None:
    assert "\x1b" not in ask("find")[1]
    assert "\x1b" not in ask("find", "--json")[1]


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5_400), ("12h", 43_200), ("3D", 259_200)])
def test_times_ago(text: str, seconds: int) -> None:
    now = time.time()
    assert moment_of(text, now) == now - seconds


def test_times_that_are_none(ask: Any) -> None:
    assert moment_of("2026-11-01T00:00+00:00", 0.0) == 1_793_491_200
    assert moment_of("999999w", 1_000.0) == 0.0
    for text in ("yesterday", "", "3", "3x", "2026-13-01", "-3d"):
        with pytest.raises(UsageError):
            moment_of(text, 0.0)
    code, _, err = ask("find", "--since", "soon")
    assert code == 2
    assert "12h" in err
