"""``sdq pin`` and ``sdq unpin``."""

import json
from typing import Any


def test_pinned_ones_are_marked_and_found(shop: Any, ask: Any) -> None:
    one, two = shop.keys[0], shop.keys[1]
    assert ask("pin", one[:10], two, one)[1] == "2 pictures pinned\n"
    assert ask("pin", one)[1] == "0 pictures pinned, 1 before\n"
    assert ask("find", "--pinned", "--keys")[1].split() == [two, one]
    assert f"{one[:12]}* " in ask("find", "red", "circle")[1]
    assert json.loads(ask("find", "--seed", "0", "--json")[1])["pinned"] is True
    answer = json.loads(ask("unpin", one, "--json")[1])
    assert answer == {"pictures": 1, "changed": 1, "pinned": False}
    assert ask("find", "--pinned", "--keys")[1].split() == [two]


def test_all_or_none(shop: Any, ask: Any) -> None:
    code, out, err = ask("pin", shop.keys[0], "00000000")
    assert (code, out) == (2, "")
    assert "00000000" in err
    assert ask("find", "--pinned", "--keys")[1] == ""
