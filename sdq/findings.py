"""What a look at this computer found, and what to do about it."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """``command``: the next one to type; empty when nothing is to be done."""

    about: str
    state: Literal["ok", "note", "problem"]
    text: str
    command: str = ""
