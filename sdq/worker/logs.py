"""What a worker prints: one line each, on stderr, for people."""

import logging
import sys
import traceback
import warnings
from pathlib import Path

LINE_CHARACTERS = 600


def configure() -> None:
    """Our own news and Celery's errors to stderr; for a process that is a worker."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    ours = logging.getLogger("sdq")
    ours.setLevel(logging.INFO)
    for name in ("sdq", "celery", "kombu"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("celery").setLevel(logging.ERROR)
    logging.getLogger("kombu").setLevel(logging.ERROR)
    logging.getLogger("celery.worker.consumer.consumer").addFilter(_is_not_about_connecting)
    warnings.simplefilter("ignore")  # advice to programmers, from the libraries


def _is_not_about_connecting(record: logging.LogRecord) -> bool:
    """The heartbeat says once that Redis is gone; Celery would say it at every try."""
    return "Cannot connect" not in record.getMessage()


class OneLine(logging.Formatter):
    """Time and text; a word for warnings; of a traceback its last place only.

    Control characters are shown as ``?``: some texts come from other computers.
    """

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if record.exc_info and record.exc_info[1] is not None:
            text += _place(record.exc_info[1])
        clean = "".join(mark if mark.isprintable() else "?" for mark in text[:LINE_CHARACTERS])
        return f"{self.formatTime(record, self.datefmt)} worker: {clean}"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f" ({type(error).__name__}: {error}{where})"
