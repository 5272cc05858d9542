"""What may be asked of a library, in the words of scripts."""

from datetime import datetime
from typing import Any, TypedDict

from sdq.errors import UsageError
from sdq.protocol.library_messages import MAX_FOUND, MAX_WORDS_CHARACTERS, FindPictures

PAGE_PICTURES = 500
"""Asked for at once where all are wanted."""


class Filters(TypedDict, total=False):
    """All that is given must be true of a picture."""

    negative: str
    """Words of the negative prompt, as those of the prompt."""
    model: str | None
    """Its id."""
    size: tuple[int, int] | None
    """Width and height in pixels."""
    since: datetime | float | None
    """Drawn then or later; a number: seconds since 1970."""
    until: datetime | float | None
    """Drawn before."""
    seed: int | None
    lora: str | None
    """The name of a LoRA that it was drawn with."""
    pinned: bool
    """True: only pinned ones."""
    before: int | None
    """Older than the picture of this ``number``."""


def question_of(words: str, limit: int, filters: Filters) -> FindPictures:
    """The request. Raises `UsageError` for what no server would take."""
    if not 1 <= limit <= MAX_FOUND:
        raise UsageError(f"{limit} pictures at once cannot be asked for", hint="1 to 1000")
    if len(words) > MAX_WORDS_CHARACTERS:
        raise UsageError(f"{len(words)} characters are too many to search for", hint="at most 1000")
    fields: dict[str, Any] = dict(filters)
    width, height = fields.pop("size", None) or (None, None)
    for name in ("since", "until"):
        moment = fields.get(name)
        if moment is not None:
            seconds = moment.timestamp() if isinstance(moment, datetime) else moment
            fields[name] = max(0.0, float(seconds))
    return FindPictures(
        request_id=0, words=words, limit=limit, width=width, height=height, **fields
    )
