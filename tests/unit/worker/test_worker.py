"""How many jobs a worker takes; its life is shown by the integration tests."""

import pytest

from sdq.worker.worker import hands, in_hand


def test_jobs_in_hand_are_those_at_once_and_some_more() -> None:
    assert [in_hand(at_once) for at_once in (1, 4, 8, 100)] == [2, 5, 10, 64]


@pytest.mark.parametrize(
    ("concurrency", "at_once", "models", "jobs"),
    [
        (0, 4, 1, 5),
        (3, 4, 1, 3),
        (0, 4, 3, 7),  # one of each model that is not in memory
        (1, 4, 2, 3),  # one alone would leave its model with nothing to do after each picture
        (64, 4, 2, 64),
    ],
)
def test_more_models_take_more_hands(
    concurrency: int, at_once: int, models: int, jobs: int
) -> None:
    assert hands(concurrency, at_once, models) == jobs
