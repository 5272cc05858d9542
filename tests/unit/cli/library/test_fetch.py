"""``sdq fetch``: several pictures, those that are not there too."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sdq.metadata import read


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_several_are_written_in_their_order(shop: Any, ask: Any, tmp_path: Path) -> None:
    code, out, err = ask("fetch", *(key[:16] for key in shop.keys), "-o", "all/{n}-{seed}.png")
    assert (code, err) == (0, "")
    assert out.split() == [f"all/{number + 1}-{number}.png" for number in range(4)]
    for number, key in enumerate(shop.keys):
        said = read((tmp_path / "here" / f"all/{number + 1}-{number}.png").read_bytes())
        assert said is not None
        assert said.key == key


def test_keys_from_standard_input(shop: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, ask("find")[1] + "\n" + shop.keys[0][:12] + "* and more\n")
    code, out, _ = ask("fetch", "-", "-o", "found/", "--json")
    assert code == 0
    assert [json.loads(line)["key"] for line in out.splitlines()] == shop.keys[::-1]
    typed(monkeypatch, "\n")
    code, _, err = ask("fetch", "-")
    assert code == 2
    assert "no keys" in err


def test_standard_input_without_an_end(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        read_lines = 0

        def readline(self, *_: object) -> bytes:
            self.read_lines += 1
            assert self.read_lines < 100
            return b"abcd1234\n"  # one key, again and again

    monkeypatch.setattr("sdq.cli.keys.MAX_KEYS", 10)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Endless()))
    code, _, err = ask("fetch", "-")
    assert code == 2
    assert "more than 10 keys" in err


def test_one_that_is_not_there_stops_no_other(shop: Any, ask: Any) -> None:
    code, out, err = ask("fetch", "0123456789", shop.keys[0], "-o", "{key}.png")
    assert (code, out) == (2, f"{shop.keys[0]}.png\n")
    assert "0123456789: no picture" in err
    code, out, err = ask("fetch", "0123456789")
    assert (code, out) == (2, "")
    code, _, err = ask("fetch", "xyz\x1b[0m")
    assert code == 2
    assert "\x1b" not in err


def test_what_cannot_be_written_ends_it(shop: Any, ask: Any) -> None:
    Path("taken.png").write_bytes(b"mine")
    code, _, err = ask("fetch", shop.keys[0], "-o", "taken.png")
    assert code != 0
    assert "exists already" in err
    assert Path("taken.png").read_bytes() == b"mine"
