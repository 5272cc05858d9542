"""How long the property tests look.

``SDQ_PROPERTY=long pytest --timeout 0 tests/property``: for an hour, and what is found is
shrunk to its shortest history, which takes minutes.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

LONG_FACTOR = 40
_is_long = os.environ.get("SDQ_PROPERTY") == "long"  # before the fixtures clear it away
_is_ci = bool(os.environ.get("CI"))

Drive = Callable[[type[RuleBasedStateMachine], int, int], None]


@pytest.fixture
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Drives a machine through so many histories of at most so many steps.

    The machine finds an empty directory for each history in its class's ``directories``.
    """

    def fresh() -> Iterator[Path]:
        while True:
            yield tmp_path_factory.mktemp("history")

    def drive(machine: type[RuleBasedStateMachine], histories: int, steps: int) -> None:
        machine.directories = fresh()  # type: ignore[attr-defined]
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine,
            settings=settings(
                max_examples=histories * (LONG_FACTOR if _is_long else 1),
                stateful_step_count=steps,
                deadline=None,
                derandomize=_is_ci,
                database=None,
                phases=(Phase.generate, Phase.shrink) if _is_long else (Phase.generate,),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )

    return drive
