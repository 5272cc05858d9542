"""What fails every second is told once."""

import logging

import pytest

from sdq.errors import StackError
from sdq.server.queue.trouble import Trouble

log = logging.getLogger("sdq.test")


@pytest.fixture
def trouble(caplog: pytest.LogCaptureFixture) -> Trouble:
    caplog.set_level(logging.INFO)
    return Trouble(log, "housekeeping")


def test_it_is_told_when_it_begins_changes_and_ends(
    trouble: Trouble, caplog: pytest.LogCaptureFixture
):
    trouble.over()
    for _ in range(3):
        trouble.met(StackError("the disk is full"))
    for _ in range(3):
        trouble.met(StackError("the file is damaged"))
    trouble.over()
    trouble.over()
    trouble.met(StackError("the disk is full"))
    assert caplog.messages == [
        "housekeeping: the disk is full",
        "housekeeping: the file is damaged",
        "housekeeping: all is well again",
        "housekeeping: the disk is full",
    ]


def test_of_a_defect_the_log_shows_where_it_is(trouble: Trouble, caplog: pytest.LogCaptureFixture):
    for _ in range(2):
        try:
            {}["nothing"]
        except KeyError as error:
            trouble.met(error, is_defect=True)
    assert caplog.messages == ["housekeeping: KeyError: 'nothing'"]
    assert '{}["nothing"]' in caplog.text
