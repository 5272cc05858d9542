"""The messages about the library: find pictures, fetch, pin and remove them.

As in ``messages.py``, which has all others and the two lists of what either side may send.
"""

from typing import Annotated

import msgspec

from sdq.protocol.vocabulary import BaseMessage, BaseRequest, Key, KeyPrefix, RequestId
from sdq.spec import ImageSpec, Name, Seed, Side

MAX_WORDS_CHARACTERS = 1_000
MAX_FOUND = 1_000
MAX_KEYS_AT_ONCE = 1_000

Words = Annotated[str, msgspec.Meta(max_length=MAX_WORDS_CHARACTERS)]
Keys = Annotated[tuple[KeyPrefix, ...], msgspec.Meta(max_length=MAX_KEYS_AT_ONCE)]
Moment = Annotated[float, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


# ---------------------------------------------------------------- client to server


class FindPictures(BaseRequest, frozen=True, omit_defaults=True):
    """The newest pictures for which all of it is true. Answer: `FoundPictures`.

    ``words`` and ``negative``: in any order, ``"phrases"``, ``begin*``. What is left out is not
    sent either: a server that does not know a filter refuses it only where it is used.
    """

    words: Words = ""  # of the prompt
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_FOUND)] = 50
    negative: Words = ""  # the same of the negative prompt
    model: Name | None = None
    width: Side | None = None
    height: Side | None = None
    since: Moment | None = None  # drawn then or later, in seconds since 1970
    until: Moment | None = None  # drawn before
    seed: Seed | None = None
    lora: Name | None = None
    pinned: bool = False  # True: only those
    before: Number | None = None  # older than the picture of this number: the next page


class FetchPicture(BaseRequest, frozen=True):
    """The picture whose key begins so. Answer: `Picture`."""

    key: KeyPrefix


class PinPictures(BaseRequest, frozen=True):
    """Pictures that retention and the size limit pass over, or no longer. Answer: `Pinned`."""

    keys: Keys
    pinned: bool = True


class RemovePictures(BaseRequest, frozen=True):
    """Takes pictures out of the library, pinned ones too. Answer: `Removed`."""

    keys: Keys


class PruneLibrary(BaseRequest, frozen=True):
    """Applies the retention now. Answer: `Removed`."""


# ---------------------------------------------------------------- server to client


class StoredPicture(msgspec.Struct, frozen=True):
    """A row of the library. Times in seconds since 1970."""

    key: Key
    spec: ImageSpec
    size_bytes: int
    created_at: float
    last_used_at: float
    pinned: bool = False
    number: int = 0  # its place: newer ones have higher numbers


class FoundPictures(BaseMessage, frozen=True):
    """Newest first. ``more``: there are others, ``before`` the number of the last of these."""

    request_id: RequestId
    pictures: tuple[StoredPicture, ...]
    more: bool = False


class Pinned(BaseMessage, frozen=True):
    """``keys``: all that were named, in full; ``changed`` of them were not so before."""

    request_id: RequestId
    keys: tuple[Key, ...]
    changed: int


class Removed(BaseMessage, frozen=True):
    request_id: RequestId
    pictures: int
    freed_bytes: int
