"""Job ids on the command line, or on standard input."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sdq.cli import completion_words
from sdq.errors import UsageError

MAX_BYTES = 1024 * 1024
"""Of standard input: some twenty thousand ids."""

JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB...",
        help="Job ids, as `sdq submit` prints them; - reads standard input.",
        autocompletion=completion_words.jobs,
    ),
]


def read_job_ids(arguments: Sequence[str]) -> list[str]:
    """The ids, each once, in order. Raises `UsageError` for what is none."""
    words: list[str] = []
    for argument in arguments:
        words += _from_stdin() if argument == "-" else [argument]
    if not words:
        raise UsageError("there is no job id", hint="`sdq jobs` shows them")
    for word in words:
        if not re.fullmatch(r"[0-9a-z]{1,40}", word):
            raise UsageError(f"{word!r} is no job id", hint="`sdq jobs` shows them")
    return list(dict.fromkeys(words))


def _from_stdin() -> list[str]:
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"standard input has more than {MAX_BYTES} bytes of job ids")
    return data.decode("ascii", "backslashreplace").split()
