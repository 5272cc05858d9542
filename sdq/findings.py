"""What a look at this computer found, and what to do about it."""

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """``command``: the next one to type; empty when nothing is to be done."""

    about: str
    state: Literal["ok", "note", "problem"]
    text: str
    command: str = ""
