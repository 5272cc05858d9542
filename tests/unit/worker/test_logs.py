"""One line each, whatever the text."""

import logging
import sys

import pytest

from sdq.worker import logs


def line(message: str, level: int = logging.INFO, *, error: bool = False) -> str:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        info = sys.exc_info() if error else None
    record = logging.LogRecord("sdq", level, __file__, 1, message, (), info)
    return logs.OneLine().format(record)


def test_a_line() -> None:
    assert line("ready").endswith(" worker: ready")


def test_warnings_say_so() -> None:
    assert line("no", logging.WARNING).endswith("worker: warning: no")


def test_no_line_breaks_and_no_escapes() -> None:
    text = line("a\nb\x1b[31m", logging.ERROR)
    assert "\n" not in text
    assert "\x1b" not in text


def test_a_traceback_is_its_last_place() -> None:
    text = line("broken", error=True)
    assert "\n" not in text
    assert "ValueError: two?lines at test_logs.py:" in text


def test_long_texts_are_cut() -> None:
    assert len(line("x" * 10_000)) < 700


@pytest.fixture
def _loggers_restored() -> object:
    names = ("sdq", "celery", "kombu")
    loggers = [logging.getLogger(name) for name in names]
    before = [(found.handlers, found.propagate, found.level) for found in loggers]
    yield
    for found, (handlers, propagate, level) in zip(loggers, before, strict=True):
        found.handlers, found.propagate = handlers, propagate
        found.setLevel(level)


@pytest.mark.usefixtures("_loggers_restored")
def test_ours_are_shown_and_celerys_advice_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("sdq.worker.app").info("ours")
    logging.getLogger("celery.worker").warning("advice")
    logging.getLogger("celery.worker.consumer.consumer").error("Cannot connect to redis")
    logging.getLogger("celery.worker.consumer.consumer").error("Received unregistered task")
    lines = capsys.readouterr().err.splitlines()
    assert [text.split(" worker: ")[1] for text in lines] == [
        "ours",
        "error: Received unregistered task",
    ]
