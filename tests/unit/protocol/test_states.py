"""The states of a job: complete, with final states, as documented."""

import re
from pathlib import Path

import pytest

from sdq.protocol.states import FINAL_STATES, TRANSITIONS, JobState, may_follow

DOC = Path(__file__).parents[3] / "docs" / "protocol.md"


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert all(following <= set(JobState) for following in TRANSITIONS.values())


def test_final_states_are_final() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == FINAL_STATES
    assert not any(may_follow(before, after) for before in FINAL_STATES for after in JobState)


@pytest.mark.parametrize("state", [s for s in JobState if s not in FINAL_STATES])
def test_every_other_state_can_end_in_each_way(state: JobState) -> None:
    assert all(may_follow(state, end) for end in FINAL_STATES)
    assert not may_follow(state, state)


def test_the_table_in_the_document_is_the_table_in_the_code() -> None:
    section = DOC.read_text("utf-8").split("## States of a job")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", section, re.MULTILINE)
    written = {JobState(name): set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}
    assert written == {
        state: {str(after) for after in following} for state, following in TRANSITIONS.items()
    }
