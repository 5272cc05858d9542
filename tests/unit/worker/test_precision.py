"""Halves on a CPU: only where they are quicker by enough, and the picture is the same."""

from collections.abc import Mapping

import pytest
from PIL import Image

from sdq.worker import precision

FULL = {1: 0.1, 2: 0.15, 8: 0.4}


@pytest.mark.parametrize(
    ("half", "difference", "prefers"),
    [
        ({1: 0.05, 2: 0.08, 8: 0.2}, 0.5, True),
        ({1: 0.05, 2: 0.08, 8: 0.2}, 8.0, True),
        ({1: 0.05, 2: 0.08, 8: 0.2}, 8.1, False),  # quick and wrong
        ({1: 0.05, 2: 0.08, 8: 0.2}, float("inf"), False),
        ({1: 0.2, 2: 0.3, 8: 0.8}, 0.0, False),
        ({1: 0.1, 2: 0.15, 8: 0.4}, 0.0, False),
        ({1: 0.11, 8: 0.28}, 0.0, True),  # 1.1 and 0.7: together a gain
        ({1: 0.11, 8: 0.31}, 0.0, False),
        ({1: 0.089}, 0.0, True),  # a device too slow for eight
        ({1: 0.095}, 0.0, False),
        ({}, 0.0, False),
    ],
)
def test_the_decision(half: Mapping[int, float], difference: float, prefers: bool) -> None:
    assert precision.prefers_halves(half, FULL, difference) is prefers


def test_the_difference_of_two_pictures() -> None:
    one = Image.new("RGB", (8, 8), (10, 20, 30))
    assert precision.difference_of(one, one) == 0.0
    assert precision.difference_of(one, Image.new("RGB", (8, 8), (13, 14, 30))) == 3.0
    other = one.copy()
    other.paste((110, 120, 130), (0, 0, 8, 4))
    assert precision.difference_of(one, other) == 50.0


def test_the_probe_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision.halves_pay_here() in (True, False)
    times = {"float32": 1.0, "bfloat16": 2.0}
    monkeypatch.setattr(precision, "_work", lambda dtype: str(dtype).removeprefix("torch."))
    monkeypatch.setattr(precision, "_seconds", lambda name: times[name])
    assert not precision.halves_pay_here()
    times["bfloat16"] = 0.5
    assert precision.halves_pay_here()
